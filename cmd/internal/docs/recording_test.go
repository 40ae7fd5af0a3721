package docs

import (
	"bufio"
	"flag"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "draw the recordings anew, from what the programs print now")

// A recording is some terminals in which real commands run, as a drawing that moves.
type recording struct {
	file      string // from root
	title     string
	terminals []terminal
}

type terminal struct {
	name    string
	command string
	begin   time.Duration // when it is typed
	lines   []line        // what it has printed
}

type line struct {
	text string
	at   time.Duration
}

// The recordings. Their scripts stand in for long work.
var recordings = []recording{{
	file:  "cmd/dreadlockctl/lock.svg",
	title: "Two terminals run the same command under a lock: the second one waits until the first one is done",
	terminals: []terminal{
		{name: "db1", command: "dreadlockctl lock nightly -v -- ./backup.sh", begin: 500 * time.Millisecond},
		{name: "db2", command: "dreadlockctl lock nightly -v -- ./backup.sh", begin: 2 * time.Second},
	},
}}

// What the recordings show is what the programs print.
func TestRecordings(t *testing.T) {
	for _, r := range recordings {
		t.Run(filepath.Base(r.file), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(root, r.file)
			r.play(t)
			if *update {
				if err := os.WriteFile(file, []byte(r.draw()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			drawing, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			shown, printed := words(string(drawing)), words(r.draw())
			if !like(shown, printed) {
				t.Errorf("the recording shows\n%s\nthe programs print\n%s\nmake it anew: go test ./cmd/internal/docs -run Recordings -update",
					shown, printed)
			}
		})
	}
}

// play runs the commands, each at its time but the first one first, and notes when each of their lines comes.
func (r *recording) play(t *testing.T) {
	s := newScene(t, "", nil)
	script := "#!/bin/sh\necho \"$HOST begins its backup\"\nsleep 3\necho \"$HOST is done\"\n"
	if err := os.WriteFile(s.path("backup.sh"), []byte(script), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	s.serve("", false)
	begin := time.Now()
	var readers sync.WaitGroup
	for i := range r.terminals {
		term := &r.terminals[i]
		<-time.After(time.Until(begin.Add(term.begin)))
		term.begin = time.Since(begin)
		cmd := s.command(term.command)
		cmd.Env = append(cmd.Environ(), "HOST="+term.name)
		output, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		readers.Go(func() {
			defer output.Close()
			for lines := bufio.NewScanner(output); lines.Scan(); {
				term.lines = append(term.lines, line{strings.ReplaceAll(lines.Text(), s.port("6001"), "6001"), time.Since(begin)})
			}
			_ = cmd.Wait()
		})
		if i == 0 {
			s.await("nightly")
		}
	}
	readers.Wait()
}

// Measures of a drawing in pixels, and for how long it shows its end.
const (
	fontSize, lineHeight, charWidth = 13, 19, 7.85
	margin, padding, header         = 1, 14, 30
	rest                            = 4 * time.Second
)

// draw returns the recording as SVG. Without animation every line is visible: the end is a picture by itself.
func (r *recording) draw() string {
	columns, end := 0, time.Duration(0)
	for _, term := range r.terminals {
		columns = max(columns, len(term.command)+2)
		for _, l := range term.lines {
			columns, end = max(columns, len(l.text)), max(end, l.at)
		}
	}
	end += rest
	var styles, body strings.Builder
	// shows returns the class of what is to be seen from a time on.
	classes := 0
	shows := func(at time.Duration) string {
		classes++
		fmt.Fprintf(&styles, "@keyframes t%d{from{visibility:hidden}%.2f%%,to{visibility:visible}}.t%[1]d{animation-name:t%[1]d}\n",
			classes, 100*at.Seconds()/end.Seconds())
		return fmt.Sprintf("t t%d", classes)
	}
	width, y := math.Ceil(float64(columns)*charWidth)+2*padding, margin
	for _, term := range r.terminals {
		height := header + (len(term.lines)+1)*lineHeight + padding
		fmt.Fprintf(&body, "<rect x=\"%d\" y=\"%d\" width=\"%.0f\" height=\"%d\" rx=\"7\"/>\n", margin, y, width, height)
		fmt.Fprintf(&body, "<text class=\"name\" x=\"%d\" y=\"%d\">%s</text>\n", margin+padding, y+20, html.EscapeString(term.name))
		at := y + header + fontSize
		fmt.Fprintf(&body, "<text x=\"%d\" y=\"%d\"><tspan class=\"prompt\">$</tspan>", margin+padding, at)
		for i, word := range strings.Fields(term.command) {
			fmt.Fprintf(&body, "<tspan class=\"%s\"> %s</tspan>", shows(term.begin-time.Duration(5-i)*80*time.Millisecond), html.EscapeString(word))
		}
		body.WriteString("</text>\n")
		for _, l := range term.lines {
			at += lineHeight
			fmt.Fprintf(&body, "<text class=\"%s\" x=\"%d\" y=\"%d\">%s</text>\n", shows(l.at), margin+padding, at, html.EscapeString(l.text))
		}
		y += height + 10
	}
	width += 2 * margin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %[1]g %[2]d" role="img">
<title>%s</title>
<style>
text{font:%dpx ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#e6edf3;white-space:pre}
rect{fill:#161b22;stroke:#6e7681}
.name{fill:#9198a1}
.prompt{fill:#3fb950}
.t{animation:%.2fs step-end 3}
%s@media(prefers-reduced-motion:reduce){.t{animation:none}}
</style>
%s</svg>
`, width, y-10+margin, html.EscapeString(r.title), fontSize, end.Seconds(), styles.String(), body.String())
}

var (
	texts = regexp.MustCompile(`(?m)^<text.*</text>$`)
	tags  = regexp.MustCompile(`<[^>]*>`)
)

// words returns what a drawing shows, without when and where.
func words(drawing string) string {
	return html.UnescapeString(tags.ReplaceAllString(strings.Join(texts.FindAllString(drawing, -1), "\n"), ""))
}
