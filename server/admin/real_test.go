package admin

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

// serveReal runs the daemon itself, on two loops, and returns its address and the URL of its admin interface.
func serveReal(t *testing.T) (address, url string) {
	t.Helper()
	srv, address := startReal(t, nil)
	return address, serve(t, Config{Source: srv})
}

// startReal runs the daemon, on two loops, with options that set may change, and returns it with its address.
func startReal(t *testing.T, set func(*server.Config)) (srv *server.Server, address string) {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.Listen, cfg.Loops = []string{"127.0.0.1:0"}, 2
	if set != nil {
		set(&cfg)
	}
	ready := make(chan string, 1)
	cfg.Ready = func(address string) { ready <- address }
	srv, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case address = <-ready:
	case <-time.After(patience):
		t.Fatal("the server has not started")
	}
	return srv, address
}

// The page of a real daemon shows who holds what, and that two clients wait for each other. After a kick of one of them the
// other goes on.
func TestPageOfRealDaemon(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	address, url := serveReal(t)
	left, right, waiter := prototest.Dial(t, address), prototest.Dial(t, address), prototest.Dial(t, address)
	left.Do("lock orders 0", "l locked")
	right.Do("lock stock 0", "l locked")
	waiter.Send("lock orders 600000")
	b.open(url + "/")
	b.until(text("#health") + " === 'serving'")
	b.until(text("#hot tbody tr:first-child") + ".startsWith('orders')")
	b.until(text("#long tbody tr:first-child") + fmt.Sprintf(".includes('%s')", left.Conn().LocalAddr()))

	left.Send("lock stock 600000")
	right.Send("lock orders 600000")
	began := time.Now()
	b.until("document.querySelectorAll('#cycles svg').length === 1")
	t.Logf("the cycle is drawn after %s", time.Since(began))
	b.until(text("#cycles") + fmt.Sprintf(".includes('%s')", left.Conn().LocalAddr()))

	// Which of the two is listed first is open. The other one gets what the first one held.
	victim := eval[string](b, "document.querySelector('.advice a.who').innerText")
	b.click("#cycles button")
	b.until("document.querySelector('#act').open")
	b.click("#act button[value=yes]")
	b.until("!document.querySelector('#act').open")
	if strings.HasSuffix(victim, left.Conn().LocalAddr().String()) {
		left.Expect("e kicked")
		left.ExpectEnd()
		waiter.Expect("l locked") // it is before the other one in the queue
		waiter.Do("unlock orders", "u unlocked")
		right.Expect("l locked")
	} else {
		right.Expect("e kicked")
		right.ExpectEnd()
		left.Expect("l locked")
	}
	b.until("document.querySelectorAll('#cycles svg').length === 0")
	b.quiet()
}

// The page of a daemon that has just started, with a lock delay, says that nothing is granted, and names no holder that nobody knows.
func TestPageOfRealStart(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	srv, address := startReal(t, func(cfg *server.Config) { cfg.LockDelay = time.Hour })
	waiter := prototest.Dial(t, address)
	waiter.Send("lock orders 600000")
	b.open(serve(t, Config{Source: srv}) + "/#key=orders")
	b.until(text("#health") + " === 'grants nothing yet' && " + text("#delay-text") + ".includes('has 1 h 0 min to notice')")
	b.until(text("#hot tbody tr:first-child td:nth-child(3)") + ".startsWith('nobody\\nfree in 59 min')")
	b.until(text("#frees") + ".startsWith('59 min') && " + text("#frees") + ".includes('before the start') && " + text("#acts") + " === ''")
	b.until(text("#queue") + fmt.Sprintf(".includes('%s')", waiter.Conn().LocalAddr()))
	b.until(text("#how") + " === ''")
	b.quiet()
}

// The page of a real daemon takes a key from its holder, who hears of it at the unlock.
func TestPageReleasesForReal(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	address, url := serveReal(t)
	holder, waiter := prototest.Dial(t, address), prototest.Dial(t, address)
	holder.Send("name ann@build7")
	if reply, err := holder.ReadReply(); err != nil || !strings.HasPrefix(reply, "n named ") {
		t.Fatalf("%q, %v", reply, err)
	}
	holder.Do("lock orders 0", "l locked")
	waiter.Send("lock orders 600000")
	b.open(url + "/#key=orders")
	b.until(text("#queue") + fmt.Sprintf(".includes('%s')", waiter.Conn().LocalAddr()))
	b.click("#acts button:nth-child(2)")
	b.until(text("#act-who") + ".includes('ann@build7 has held it for')")
	b.click("#act-yes")
	waiter.Expect("l locked")
	b.until(text("#facts") + fmt.Sprintf(".includes('%s') && ", waiter.Conn().LocalAddr()) + text("#line") + " === ''")
	holder.Do("unlock orders", "e not owner")
	b.quiet()
}

// buildDreadlockctl returns the path of dreadlockctl.
func buildDreadlockctl(t *testing.T) string {
	t.Helper()
	// A cached result of the test is used until a file changes that the test itself has read.
	for _, sources := range []string{"../../cmd/dreadlockctl", "../../proto/client"} {
		if _, err := os.ReadDir(sources); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "dreadlockctl")
	if output, err := exec.Command("go", "build", "-o", program, "dreadlock/cmd/dreadlockctl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return program
}

// nestedLock runs a dreadlockctl that holds a key, and under it another one that takes a second key when a line comes.
func nestedLock(t *testing.T, program, address, outer, inner string) (command *exec.Cmd, stdin io.Writer) {
	t.Helper()
	script := fmt.Sprintf(`read line; exec "$0" lock %s --name %s-under-%[2]s@build7 -- true`, inner, outer)
	command = exec.CommandContext(t.Context(), program, "lock", outer, "--name", outer+"@build7", "--", "sh", "-c", script, program)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "DREADLOCK_SERVER=" + address}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Wait() })
	return command, stdin
}

// Two nested dreadlockctl in a deadlock are shown by the page of a real daemon, with both names and whom to kick. After the kick
// that one has ended, and the other one has both keys.
func TestPageNestedDeadlock(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	program := buildDreadlockctl(t)
	address, url := serveReal(t)
	b.open(url + "/")
	first, goFirst := nestedLock(t, program, address, "orders", "stock")
	second, goSecond := nestedLock(t, program, address, "stock", "orders")
	b.until(text("#plots li:nth-child(4) b") + " === '2'") // held keys
	fmt.Fprintln(goFirst)
	b.until(text("#hot tbody tr:first-child") + ".startsWith('stock')") // so that this wait is the older one
	began := time.Now()
	fmt.Fprintln(goSecond)
	b.until("document.querySelectorAll('#cycles svg .node').length === 2")
	t.Logf("the deadlock is drawn %s after the second one was told to wait", time.Since(began))
	b.until(text("#cycles li:nth-child(1)") + ".includes('orders-under-orders@build7 has waited')")
	b.until(text("#cycles li:nth-child(2)") + ".includes('stock-under-stock@build7 has waited')")
	b.until(text("#cycles li:nth-child(2)") + ".includes(' holds for the owner ')")
	b.until("document.title.startsWith('(1 deadlock) ')")
	for _, key := range []string{"orders", "stock"} {
		b.until(text("#hot tbody tr[data-id="+key+"]") + fmt.Sprintf(".includes('%s@build7')", key))
	}
	b.until("document.querySelector('.advice a.who').innerText.endsWith('stock-under-stock@build7')")
	b.until(text(".advice") + ".includes('orders-under-orders@build7 waits for stock, which its owner should then give up')")

	b.click("#cycles button")
	b.until(text("#act-who") + ".includes('stock-under-stock@build7')")
	b.click("#act-yes")
	const kicked = 77
	if err := second.Wait(); second.ProcessState.ExitCode() != kicked {
		t.Errorf("who was kicked ended with %v, want %d", err, kicked)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the other one ended with %v", err)
	}
	b.until(text("#cycles") + " === '' && " + text("#deadlocks-text") + ".startsWith('No deadlock now. 1 found')")
	b.quiet()
}
