package docs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// programs is the directory of the daemon and dreadlockctl, built from the sources.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "programs")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		programs = dir
		build := exec.Command("go", "build", "-o", dir, "../../dreadlock", "../../dreadlockctl")
		if output, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, output)
			return 1
		}
		return m.Run()
	}())
}

// A step is a command of a block and what it shows to print.
type step struct {
	command string
	shown   []string
}

var (
	crontab = regexp.MustCompile(`^\S+ \S+ \S+ \S+ \S+\s+`)
	yamlRun = regexp.MustCompile(`^\s*(- )?run: `)
)

// steps returns the commands of a block in its language: shell, a session with prompts, a table of cron, a unit, a workflow.
func (b block) steps() []step {
	var all []step
	continued := false
	for _, line := range b.lines {
		command, is := line, line != "" && !strings.HasPrefix(line, "#")
		switch b.lang {
		case "console":
			command, is = strings.CutPrefix(line, "$ ")
		case "crontab":
			command = crontab.ReplaceAllString(line, "")
		case "ini":
			command, is = strings.CutPrefix(line, "ExecStart=")
		case "yaml":
			is = yamlRun.MatchString(line)
			command = yamlRun.ReplaceAllString(line, "")
		}
		switch {
		case continued:
			all[len(all)-1].command += "\n" + line
		case is:
			all = append(all, step{command: command})
		case b.lang == "console" && len(all) > 0:
			all[len(all)-1].shown = append(all[len(all)-1].shown, line)
		}
		continued = (continued || is) && strings.HasSuffix(line, `\`)
	}
	return all
}

// Every block that is marked so is run, and prints what it shows.
func TestBlocks(t *testing.T) {
	ca := prototest.NewCA(t)
	for _, doc := range documents(t) {
		for _, b := range doc.blocks {
			if !runs.MatchString(b.marks) || proxies[b.lang] != nil {
				continue
			}
			script := strings.Join(b.lines, "\n")
			steps := b.steps()
			if len(steps) == 0 {
				t.Errorf("%s: there is no command", b)
			}
			held := strings.HasSuffix(b.marks, "held")
			if !strings.Contains(b.marks, "each") {
				t.Run(b.String(), func(t *testing.T) { t.Parallel(); newScene(t, script, ca).play(steps, held) })
				continue
			}
			for i, one := range steps {
				t.Run(fmt.Sprintf("%s+%d", b, i+1), func(t *testing.T) { t.Parallel(); newScene(t, one.command, ca).play([]step{one}, held) })
			}
		}
	}
}

var (
	startsDaemon = regexp.MustCompile(`(?m)^dreadlock\b`)
	comment      = regexp.MustCompile(`\s+# .*$`)
	background   = regexp.MustCompile(`^dreadlock\b(.*?)\s*&$`)
	lasts        = regexp.MustCompile(`^dreadlockctl (top|watch( \w+)?|lock \w+)( --?[a-z][a-z-]*( [\w.:/@]+)?)*$|` +
		`^dreadlockctl lock .*--restart|^dreadlockctl watch .*\||^curl -sN .*text/event-stream`)
	ends       = regexp.MustCompile(` -n \d| --json -n`)
	waits      = regexp.MustCompile(`^dreadlockctl lock (\w+) .*&$`)
	onTerminal = regexp.MustCompile(`^dreadlockctl (top|kick|release)\b`)
	statuses   = regexp.MustCompile(`status (\d+)`)
)

// play runs the steps in one shell.
func (s *scene) play(steps []step, held bool) {
	s.t.Helper()
	if !slices.ContainsFunc(steps, func(one step) bool { return startsDaemon.MatchString(one.command) }) {
		var script strings.Builder
		for _, one := range steps {
			script.WriteString(one.command + "\n")
		}
		s.serve(script.String(), held)
	}
	sh := s.shell()
	for _, one := range steps {
		line := comment.ReplaceAllString(one.command, "")
		run := s.fill(line)
		if waits.MatchString(line) {
			run = strings.TrimSuffix(run, "&") + ">/dev/null 2>&1 &"
		}
		if onTerminal.MatchString(line) && !strings.Contains(line, "--json") && !strings.Contains(line, "--yes") {
			run = "echo y | script -qec '" + run + "' /dev/null"
		}
		want := []string{"0"}
		for _, m := range statuses.FindAllStringSubmatch(one.command, -1) {
			want = append(want, m[1])
		}
		var output, status string
		switch {
		case strings.HasPrefix(line, "nc -C "):
			s.talk(line, one.shown)
			continue
		case lasts.MatchString(line) && !ends.MatchString(line):
			output, status = s.interrupt(run, strings.Join(one.shown, "\n"))
		case background.MatchString(line):
			output, status = sh.do(s.fill(background.ReplaceAllString(line, "start$1")))
		case startsDaemon.MatchString(line):
			output, status = sh.do(s.fill("serves" + strings.TrimPrefix(line, "dreadlock")))
		default:
			output, status = sh.do(run)
		}
		if m := waits.FindStringSubmatch(line); m != nil {
			s.await(m[1])
		}
		if !slices.Contains(want, status) {
			s.t.Errorf("%s: status %s, want %v: %s", line, status, want, output)
		}
		if shown := s.fill(strings.Join(one.shown, "\n")); shown != "" && !like(shown, output) {
			s.t.Errorf("%s\nprints\n%s\nthe document shows\n%s", line, output, shown)
		}
	}
}

// A shell gets one command after the other.
type shell struct {
	s        *scene
	commands *os.File
	pipe     *os.File
	output   *bufio.Reader
}

const endMark = "\n@@end "

func (s *scene) shell() *shell {
	s.t.Helper()
	cmd := s.command(preamble + `while IFS= read -r -u 3 -d '' line; do eval "$line" </dev/null 3<&-; printf '\n@@end %s\n' $?; done`)
	commands, toShell, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	fromShell, output, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{commands}, output, output
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	_, _ = commands.Close(), output.Close()
	s.t.Cleanup(func() {
		_, _ = toShell.Close(), fromShell.Close()
		s.end()
		_ = cmd.Wait()
	})
	return &shell{s, toShell, fromShell, bufio.NewReader(fromShell)}
}

// do runs a command and returns what it has printed, and its status.
func (sh *shell) do(line string) (output, status string) {
	sh.s.t.Helper()
	if _, err := sh.commands.WriteString(line + "\x00"); err != nil {
		sh.s.t.Fatal(err)
	}
	var got strings.Builder
	_ = sh.pipe.SetReadDeadline(time.Now().Add(prototest.Patience))
	for {
		next, err := sh.output.ReadString('\n')
		got.WriteString(next)
		if output, status, found := strings.Cut(got.String(), endMark); found {
			return output, strings.TrimSpace(status)
		}
		if err != nil {
			return got.String(), fmt.Sprintf("of a command that does not end: %v", err)
		}
	}
}

// interrupt runs a command that lasts until Ctrl-C. It comes when what is shown is printed or, if nothing is shown, after a moment.
func (s *scene) interrupt(line, shown string) (output, status string) {
	s.t.Helper()
	file, err := os.Create(s.path("output"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	cmd := s.command(line)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = file, file, &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	printed := func() string {
		content, _ := os.ReadFile(file.Name())
		return string(content)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for begin := time.Now(); ; {
		select {
		case err := <-done:
			return printed(), fmt.Sprintf("of a command that should last: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		patience := prototest.Patience
		if shown == "" {
			patience = time.Second
		}
		if time.Since(begin) > patience || shown != "" && like(shown, printed()) {
			break
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	defer time.AfterFunc(prototest.Patience, s.end).Stop()
	err = <-done
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); !ok || exit.ExitCode() != 130 && ws.Signal() != syscall.SIGINT {
			return printed(), err.Error()
		}
	}
	return printed(), "0"
}

var typed = regexp.MustCompile(`^(lock|unlock|fence|name|owner) `)

// talk types the commands of a session with netcat, and waits for the answer of each.
func (s *scene) talk(line string, session []string) {
	s.t.Helper()
	cmd := s.command("exec " + s.fill(line))
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer time.AfterFunc(prototest.Patience, func() { _ = cmd.Process.Kill() }).Stop()
	answers := bufio.NewReader(out)
	for _, next := range session {
		if typed.MatchString(next) {
			_, err = io.WriteString(in, next+"\n")
		} else {
			var answer string
			if answer, err = answers.ReadString('\n'); !like(next, answer) {
				s.t.Errorf("the answer is %q, the document shows %q", answer, next)
			}
		}
		if err != nil {
			s.t.Fatalf("%s: %v", next, err)
		}
	}
	_ = in.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// What differs from one run to the next, in this order.
var volatile = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\bv\d+\.\d+\.\d+[\w.+-]*|\(devel\)`), "VERSION"},
	{regexp.MustCompile(`\d[\d.,]* (ms|s|min|h|d)( \d+ (ms|s|min|h))?\b`), "AGE"},
	{regexp.MustCompile(`(\d+\.\d+\.\d+\.\d+|\[::1\]|localhost):\d+`), "ADDRESS"},
	{regexp.MustCompile(`"owner":"\w+"`), `"owner":"NAME"`},
	{regexp.MustCompile(` --server ADDRESS`), ""}, // the scene has its daemon at another port than the default
	{regexp.MustCompile(`[\w.]+@[\w.-]+(:\d+:\S+)?`), "NAME"},
	{regexp.MustCompile(`\b(\d+[0-9a-f]{15}|[0-9a-f]+\d[0-9a-f]{8,})\b`), "N"},
	{regexp.MustCompile(`\d[\d.,]*(e-\d+,?)?`), "N"},
	{regexp.MustCompile(`\bN\.N\b`), "N"},
	{regexp.MustCompile(`\s+`), " "},
}

var broken = regexp.MustCompile(`\n +`)

// like reports whether a program has printed what a document shows, apart from ages, addresses, numbers, blanks, and what "..." stands for.
// Lines of JSON are broken in documents where the next one begins with a blank.
func like(shown, printed string) bool {
	if strings.HasPrefix(shown, "{") {
		shown = broken.ReplaceAllString(shown, "")
	}
	for _, v := range volatile {
		shown, printed = v.what.ReplaceAllString(shown, v.as), v.what.ReplaceAllString(printed, v.as)
	}
	parts := strings.Split(strings.TrimSpace(shown), "...")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(strings.TrimSpace(parts[i]))
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(strings.TrimSpace(printed))
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		want           bool
	}{
		{"l locked", "l locked\r\n", true},
		{"l locked", "t timeout", false},
		{"nightly  1.1 s  127.0.0.1:58136", "nightly 12 ms 127.0.0.1:4", true},
		{"nightly  1.1 s", "backup 1.1 s", false},
		{"a ... d", "a b c d", true},
		{"n named 60000 0f04127a84765da9", "n named 60000 9c1f0a2b3c4d5e6f", true},
		{"{\"a\":1.5,\n \"b\":{\n   \"c\":[]}}", `{"a":1.2e-05,"b":{"c":[]}}`, true},
		{"{\"a\":1,\n \"b\":2}", `{"a":1,"c":2}`, false},
		{"{\"a\":1}", `{"a":1,"c":2}`, false},
	} {
		if got := like(c.shown, c.printed); got != c.want {
			t.Errorf("%q, %q: %v", c.shown, c.printed, got)
		}
	}
}
