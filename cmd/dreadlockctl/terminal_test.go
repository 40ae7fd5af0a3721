package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"dreadlock/proto/prototest"
)

// terminal is a program at a terminal of its own, and its user.
type terminal struct {
	tb     testing.TB
	cmd    *exec.Cmd
	master *os.File
	shown  *text
}

// beginAt starts a program at a terminal of 100 columns and 30 lines. It is killed at the end of the test.
func beginAt(tb testing.TB, env []string, name string, args ...string) *terminal {
	tb.Helper()
	tt := &terminal{tb: tb, cmd: exec.Command(name, args...)}
	tt.cmd.Env = environment(append(env, "PS1="+prompt, "TERM=xterm")...)
	master, err := pty.StartWithSize(tt.cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		tb.Skipf("no terminal: %v", err)
	}
	tt.master, tt.shown = master, readText(tb, master)
	tb.Cleanup(func() {
		_ = tt.cmd.Process.Kill()
		_ = tt.cmd.Wait()
	})
	return tt
}

// prompt is that of a shell.
const prompt = "ready> "

// awaitPrompt waits for a prompt after the first bytes. What is typed sooner, while the shell changes the mode of the terminal, may
// lose a character.
func (tt *terminal) awaitPrompt(bytes int) {
	tt.tb.Helper()
	tt.shown.awaitAfter(tt.tb, bytes, prompt)
}

func (tt *terminal) typed(keys string) {
	tt.tb.Helper()
	if _, err := tt.master.WriteString(keys); err != nil {
		tt.tb.Fatal(err)
	}
}

// exit waits for the end of the program and returns its status.
func (tt *terminal) exit() int {
	tt.tb.Helper()
	killer := time.AfterFunc(prototest.Patience, func() { _ = tt.cmd.Process.Kill() })
	defer killer.Stop()
	_ = tt.cmd.Wait()
	return tt.cmd.ProcessState.ExitCode()
}

// The command reads from the terminal, and an interrupt of the keyboard reaches it once, not a second time through dreadlockctl.
// Signals are passed on in the order in which they come, so SIGUSR1 confirms that the one before is dealt with.
func TestTerminal(t *testing.T) {
	d := startDaemon(t)
	tt := beginAt(t, nil, program, append([]string{"lock", "k", "--server", d.address}, childCommand("count")...)...)
	signalled := func(s os.Signal) {
		t.Helper()
		if err := tt.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	tt.typed("a word\n")
	tt.shown.await(t, `read "a word\n"`)
	for n := 1; n <= 2; n++ {
		tt.typed("\x03")
		tt.shown.await(t, fmt.Sprintf("interrupt %d\r\n", n))
		before := tt.shown.len()
		signalled(os.Interrupt) // taken for one of the keyboard
		signalled(syscall.SIGUSR1)
		tt.shown.awaitAfter(t, before, fmt.Sprintf("interrupts so far: %d\r\n", n))
	}
	signalled(syscall.SIGTERM)
	if status := tt.exit(); status != 6 {
		t.Errorf("status %d, want 6", status)
	}
}

// In a shell it is a job like any other: Ctrl-Z stops it with its command, and fg continues both.
func TestJobControl(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	d := startDaemon(t)
	tt := beginAt(t, []string{"DREADLOCK_SERVER=" + d.address}, bash, "--norc", "--noprofile", "-i")
	tt.awaitPrompt(0)
	tt.typed(program + ` lock k -- sh -c 'echo be""gan; read line; echo "read <$line>"' | cat; echo sta""tus ${PIPESTATUS[0]}` + "\n")
	tt.shown.await(t, "began")
	stopped := tt.shown.len()
	tt.typed("\x1a")
	tt.shown.await(t, "Stopped")
	tt.awaitPrompt(stopped)
	d.dial(t).Do("lock k 0", "t timeout")
	before := tt.shown.len()
	tt.typed("fg\n")
	tt.shown.awaitAfter(t, before, "lock k -- sh") // bash prints what it continues, and stops reading
	tt.typed("a word\n")
	tt.shown.await(t, "read <a word>")
	tt.awaitPrompt(before)
	tt.typed("exit\n")
	tt.exit()
	d.free(t, "k")
}

// The screen of top is drawn, redrawn for another size, and restored.
func TestTopScreen(t *testing.T) {
	for name, quit := range map[string]string{"q": "q", "Ctrl-C": "\x03"} {
		t.Run(name, func(t *testing.T) {
			a := serveAdmin(t)
			tt := beginAt(t, nil, program, "top", "--admin", a.url, "-i", "100ms")
			tt.shown.await(t, enterScreen)
			tt.shown.await(t, "known after the next update")
			tt.shown.await(t, "12,000 commands")
			tt.shown.await(t, "nightly")
			if err := pty.Setsize(tt.master, &pty.Winsize{Rows: 4, Cols: 12}); err != nil {
				t.Fatal(err)
			}
			tt.shown.await(t, "2 waiters, …"+clearRight)
			tt.typed(quit)
			if status := tt.exit(); status != 0 {
				t.Errorf("status %d", status)
			}
			tt.shown.awaitEnd(t)
			if !strings.HasSuffix(tt.shown.String(), leaveScreen) {
				t.Error("it does not leave the alternate screen")
			}
		})
	}
}

// A daemon that stops answering is reported on the screen, and asked again.
func TestTopDaemonEnds(t *testing.T) {
	a := serveAdmin(t)
	tt := beginAt(t, nil, program, "top", "--admin", a.url, "-i", "100ms")
	tt.shown.await(t, "12,000 commands")
	a.down.Store(true)
	tt.shown.await(t, "not up to date: ")
	before := tt.shown.len()
	a.down.Store(false)
	tt.shown.awaitAfter(t, before, "q quits")
	if err := tt.cmd.Process.Signal(allSignals["TERM"]); err != nil {
		t.Fatal(err)
	}
	if status := tt.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// kick shows what the client would lose, and takes only yes for a yes.
func TestKickAsks(t *testing.T) {
	for answer, kicks := range map[string]bool{"y": true, "Yes": true, "": false, "no": false, "\x04": false} {
		a := serveAdmin(t)
		tt := beginAt(t, nil, program, "kick", "5", "--admin", a.url)
		tt.shown.await(t, "connection 5 (nightly@db1, 10.0.0.1:40001), waiting, holds a1,nightly, waits for b (3.0 s)\r\nkick it? [y/N] ")
		tt.typed(answer + "\n")
		want := 0
		if !kicks {
			want = exitFailed
		}
		if status := tt.exit(); status != want || strings.Contains(a.seen(), "POST /api/v1/connections/5/kick") != kicks {
			t.Errorf("%q: status %d, %s", answer, status, a.seen())
		}
	}
}

// release shows the holder and the waiters, and what was shown is what it asks to release.
func TestReleaseAsks(t *testing.T) {
	for answer, releases := range map[string]bool{"y": true, "": false} {
		a := serveAdmin(t)
		tt := beginAt(t, nil, program, "release", "nightly", "--admin", a.url)
		tt.shown.await(t, "nightly is held by connection 5 (nightly@db1, 10.0.0.1:40001) for 1 min 15 s")
		tt.shown.await(t, "release it? [y/N] ")
		tt.typed(answer + "\n")
		want := 0
		if !releases {
			want = exitFailed
		}
		if status := tt.exit(); status != want || strings.Contains(a.seen(), "POST /api/v1/keys/nightly/release?connection=5&token=1795521600000000007") != releases {
			t.Errorf("%q: status %d, %s", answer, status, a.seen())
		}
	}
}

// The state of the terminal is restored.
func TestScreenState(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	defer master.Close()
	defer slave.Close()
	before, err := term.GetState(int(slave.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	sc, err := openScreen(&streams{slave, slave, slave})
	if err != nil {
		t.Fatal(err)
	}
	sc.close()
	after, err := term.GetState(int(slave.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %v", err)
	}
}
