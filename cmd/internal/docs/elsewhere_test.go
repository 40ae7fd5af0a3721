package docs

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var (
	row       = regexp.MustCompile(`^\| .*?\| ` + "`(lock [^`]*)`")
	impatient = regexp.MustCompile(` (-n|-w|--try|--wait) `)
	conflict  = regexp.MustCompile(` -E (\d+)`)
)

// What the table of other tools says about ours is true: every line of it runs a command under a free key, and those that do not wait for
// ever give up at a key that is held. Where flock is there, it behaves as the line says, too.
func TestComingFromElsewhere(t *testing.T) {
	s := newScene(t, "CMD.sh SCRIPT.sh", nil)
	s.serve("", false)
	s.output("dreadlockctl lock held -- sleep 600 >/dev/null 2>&1 &")
	s.await("held")
	s.output("flock taken sleep 600 >/dev/null 2>&1 & until ! flock -n taken true; do :; done")
	words := strings.NewReplacer("CMD", "./CMD.sh", "SCRIPT", "./SCRIPT.sh", "'a && b'", "'./CMD.sh && ./SCRIPT.sh'",
		"-w 15", "-w 0.1",
		"-w 30", "-w 0.1", "-w 5", "-w 0.1")
	status := func(script string) string {
		return strings.TrimSpace(s.output("(" + script + ") >/dev/null 2>&1; echo $?"))
	}
	rows := 0
	for _, doc := range documents(t) {
		if doc.file != "cmd/dreadlockctl/README.md" {
			continue
		}
		for _, text := range doc.text {
			m := row.FindStringSubmatch(text)
			if m == nil || strings.Contains(text, "--restart") {
				continue
			}
			rows++
			ours := "dreadlockctl " + words.Replace(m[1])
			if !strings.Contains(ours, "--") && !strings.Contains(ours, " -c ") {
				ours += " -- ./CMD.sh" // its options; or the lock is held until Ctrl-C, as TestBlocks does
			}
			if got := status(strings.Replace(ours, "KEY", "free", 1)); got != "0" {
				t.Errorf("%s: status %s with a free key", m[1], got)
			}
			want := "75"
			if code := conflict.FindStringSubmatch(ours); code != nil {
				want = code[1]
			}
			if impatient.MatchString(ours) {
				if got := status(strings.Replace(ours, "KEY", "held", 1)); got != want {
					t.Errorf("%s: status %s with a key that is held, want %s", m[1], got, want)
				}
			}
		}
	}
	if rows < 8 {
		t.Errorf("only %d lines are there", rows)
	}
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip(err)
	}
	for script, want := range map[string]string{"flock -n taken true": "1", "flock -w 0.1 -E 9 taken true": "9", "flock free true": "0"} {
		if got := status(script); got != want {
			t.Errorf("%s: status %s, want %s", script, got, want)
		}
	}
}
