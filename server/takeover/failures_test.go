package takeover

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// predecessorSteps are what the predecessor does, each with what has to have happened before.
var predecessorSteps = []struct {
	name    string
	prepare func(p *pair)
	do      func(ctx context.Context, p *pair) error
}{
	{"greet", func(*pair) {}, func(ctx context.Context, p *pair) error {
		_, err := p.s.Greet(ctx, Hello{}, nil)
		return err
	}},
	{"hand over", func(p *pair) { p.greets() }, func(ctx context.Context, p *pair) error {
		_, err := p.s.HandOver(ctx, Estate{}, memory(p.tb, ""), nil)
		return err
	}},
	{"commit", func(p *pair) { p.handsOver() }, func(ctx context.Context, p *pair) error { return p.s.Commit(ctx) }},
}

// A successor that dies is noticed at each step, and how it has ended is said. The predecessor may go on.
func TestSuccessorDies(t *testing.T) {
	for _, step := range predecessorSteps {
		t.Run(step.name, func(t *testing.T) {
			before := newTestPair(t)
			step.prepare(before)
			before.child.die()
			says(t, step.do(within(t), before), "has ended: exit status 3")
			before.s.Abort(errors.New("it has died"))
			before.s.End()
			if before.child.killed {
				t.Error("a dead process is killed")
			}

			during := newTestPair(t)
			step.prepare(during)
			time.AfterFunc(20*time.Millisecond, during.child.die)
			says(t, step.do(within(t), during), "has ended: exit status 3")
		})
	}
}

// A process that ends and leaves its end of the pair to a child of its own, as a shell script may, is no successor either.
func TestSuccessorLeavesItsEnd(t *testing.T) {
	for _, step := range predecessorSteps {
		p := newTestPair(t)
		step.prepare(p)
		p.child.leaves = true
		p.child.die()
		says(t, step.do(within(t), p), "has ended: exit status 3")
	}
}

// One that closes its end and lives on is none.
func TestSuccessorHangsUp(t *testing.T) {
	for _, step := range predecessorSteps {
		p := newTestPair(t)
		step.prepare(p)
		_ = p.p.conn.Close()
		says(t, step.do(within(t), p), "4711", "closed its end")
	}
}

// A successor that hangs is given up when the time is up, and is killed afterwards. From then on it cannot ack.
func TestSuccessorHangs(t *testing.T) {
	for _, step := range predecessorSteps {
		t.Run(step.name, func(t *testing.T) {
			p := newTestPair(t)
			step.prepare(p)
			err := step.do(shortly(t), p)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want that the time is up", err)
			}
			says(t, err, "4711", "does not answer in time")
			if step.name == "commit" {
				if err := p.p.conn.send(within(t), stepAck, nil); !errors.Is(err, errGone) {
					t.Errorf("the ack can be sent after the predecessor has given up: %v", err)
				}
			}
			p.s.Abort(err)
			p.s.End()
			if !p.child.killed {
				t.Error("it is not killed")
			}
		})
	}
}

// An ack that has been queued counts, even if the predecessor had given up waiting, and even if the successor is dead by then.
func TestLateAck(t *testing.T) {
	for _, dies := range []bool{false, true} {
		p := newTestPair(t)
		p.handsOver()
		ctx := within(t)
		if err := p.p.conn.send(ctx, stepAck, nil); err != nil {
			t.Fatal(err)
		}
		if dies {
			p.child.die()
		}
		given, cancel := context.WithCancel(ctx)
		cancel()
		if err := p.s.Commit(given); err != nil {
			t.Errorf("it has died: %t: %v, want that the successor serves", dies, err)
		}
	}
}

// Whatever happens first, an ack that comes when the predecessor gives up: both agree on who serves.
func TestAckRaces(t *testing.T) {
	for try := range 200 {
		p := newTestPair(t)
		p.handsOver()
		took := make(chan error, 1)
		go func() {
			ctx := within(t)
			if _, err := p.p.conn.expect(ctx, stepCommit); err != nil {
				took <- err
				return
			}
			time.Sleep(time.Duration(try%20) * 20 * time.Microsecond) //nolint:forbidigo // a race
			took <- p.p.acknowledge(ctx)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Microsecond)
		err := p.s.Commit(ctx)
		cancel()
		if err != nil {
			p.s.Abort(err)
		}
		if other := <-took; (err == nil) != (other == nil) {
			t.Fatalf("try %d: the predecessor has %v, and the successor %v: both serve, or none", try, err, other)
		}
	}
}

// successorSteps are what the successor does, each with what has to have happened before.
var successorSteps = []struct {
	name    string
	prepare func(p *pair)
	do      func(ctx context.Context, p *pair) error
}{
	{"hear", func(*pair) {}, func(ctx context.Context, p *pair) error { return p.p.hear(ctx) }},
	{"receive", func(p *pair) { p.greets() }, func(ctx context.Context, p *pair) error {
		_, _, _, err := p.p.Receive(ctx)
		return err
	}},
	{"take over", func(p *pair) { p.handsOver() }, func(ctx context.Context, p *pair) error { return p.p.TakeOver(ctx, nil) }},
}

// A predecessor that dies before the commit takes the successor with it, and one that goes on says so.
func TestPredecessorDies(t *testing.T) {
	for _, step := range successorSteps {
		t.Run(step.name, func(t *testing.T) {
			p := newTestPair(t)
			step.prepare(p)
			_ = p.s.conn.Close()
			if err := step.do(within(t), p); !errors.Is(err, errGone) {
				t.Errorf("dead: %v", err)
			}

			during := newTestPair(t)
			step.prepare(during)
			time.AfterFunc(20*time.Millisecond, func() { _ = during.s.conn.Close() })
			if err := step.do(within(t), during); !errors.Is(err, errGone) {
				t.Errorf("it dies: %v", err)
			}

			goesOn := newTestPair(t)
			step.prepare(goesOn)
			goesOn.s.Abort(errors.New("too busy"))
			_ = goesOn.s.conn.Close()
			var aborted *AbortedError
			if err := step.do(within(t), goesOn); !errors.As(err, &aborted) || aborted.Reason != "too busy" {
				t.Errorf("it goes on: %v", err)
			}
			if isClosed(goesOn.p.Serving()) {
				t.Error("the successor serves")
			}
		})
	}
}

// A successor that cannot be told that the predecessor goes on is killed first: it may have seen the commit.
func TestAbortIsNotSent(t *testing.T) {
	p := newTestPair(t)
	p.handsOver()
	for p.s.conn.send(shortly(t), stepCommit, nil) == nil { // until there is no room
	}
	p.s.Abort(errors.New("it reads nothing"))
	if !p.child.killed {
		t.Error("the successor lives, and serves when it finds that its predecessor has died")
	}
}

// A reason may be of any length: what is said of it is its beginning.
func TestLongReasons(t *testing.T) {
	long := errors.New(strings.Repeat("ö", maxPacket))
	for name, say := range map[string]func(p *pair) error{
		"abort": func(p *pair) error {
			p.s.Abort(long)
			_, err := p.p.conn.expect(within(t), stepCommit)
			return err
		},
		"refusal": func(p *pair) error {
			p.p.Refuse(long)
			_, err := p.s.conn.expect(within(t), stepReady)
			return err
		},
	} {
		p := newTestPair(t)
		p.handsOver()
		if err := say(p); err == nil || !strings.Contains(err.Error(), "öööö") || !utf8.ValidString(err.Error()) {
			t.Errorf("%s: %.100v", name, err)
		}
		if p.child.killed {
			t.Errorf("%s: the successor is killed", name)
		}
	}
}

// A predecessor that says nothing is given up.
func TestPredecessorSaysNothing(t *testing.T) {
	for _, step := range successorSteps {
		p := newTestPair(t)
		step.prepare(p)
		if err := step.do(shortly(t), p); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}

// A predecessor that has died after its commit leaves the successor to serve. One that has given up by then does not, even if
// it dies later.
func TestPredecessorDiesAfterCommit(t *testing.T) {
	p := newTestPair(t)
	p.handsOver()
	if err := p.s.conn.send(within(t), stepCommit, nil); err != nil {
		t.Fatal(err)
	}
	_ = p.s.conn.Close()
	if err := p.p.TakeOver(within(t), nil); !errors.Is(err, errGone) {
		t.Errorf("dead before it could be told that the successor is ready: %v", err) // its commit would be a lie
	}

	for _, givesUp := range []bool{false, true} {
		p := newTestPair(t)
		p.handsOver()
		ctx := within(t)
		if err := p.s.conn.send(ctx, stepCommit, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := p.p.conn.expect(ctx, stepCommit); err != nil {
			t.Fatal(err)
		}
		if givesUp {
			p.s.conn.hangUp()
			p.s.Abort(errors.New("no ack"))
		}
		_ = p.s.conn.Close()
		err := p.p.acknowledge(ctx)
		var aborted *AbortedError
		if givesUp && !errors.As(err, &aborted) || !givesUp && err != nil {
			t.Errorf("it has given up: %t: %v", givesUp, err)
		}
		if isClosed(p.p.Serving()) == givesUp {
			t.Errorf("it has given up: %t, and whether the successor serves is wrong", givesUp)
		}
	}
}

// A predecessor that dies after the ack is waited for until its files are closed.
func TestPredecessorDiesAfterAck(t *testing.T) {
	p := newTestPair(t)
	_ = p.s.conn.Close()
	if !p.p.AwaitEnd(within(t), func() { t.Error("a dead process is killed") }) || !p.parent.waited || p.parent.killed {
		t.Errorf("dead: %+v", p.parent)
	}

	p = newTestPair(t)
	if p.p.AwaitEnd(shortly(t), func() { t.Error("it is killed at once") }) || isClosed(p.p.Left()) {
		t.Error("it is told that the predecessor has left when its own time is up")
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// What another program or another version says is no takeover.
func TestNonsense(t *testing.T) {
	ctx := within(t)
	for _, c := range []struct {
		says string
		send func(c *conn) error
	}{
		{"format 99, and 1 is known", func(c *conn) error { return c.send(ctx, stepHello, Hello{Format: 99, Version: "later"}) }},
		{"the daemon that runs, later,", func(c *conn) error { return c.send(ctx, stepHello, Hello{Format: 99, Version: "later"}) }},
		{"wait for hello: commit has come", func(c *conn) error { return c.send(ctx, stepCommit, nil) }},
		{"wait for hello: step 200 has come", func(c *conn) error { return c.send(ctx, step(200), nil) }},
		{"hello: not understood", func(c *conn) error { return c.send(ctx, stepHello, nil) }},
		{"2 listeners, and 1 of them", func(c *conn) error {
			return c.send(ctx, stepHello, Hello{Format: Format, Listeners: []string{"a", "b"}, Locks: []bool{true}})
		}},
		{"unexpected descriptors", func(c *conn) error { return c.send(ctx, stepHello, Hello{Format: Format}, 0) }},
		{"2 descriptors have come where 1 were to come", func(c *conn) error {
			return errors.Join(c.send(ctx, stepHello, Hello{Format: Format, Listeners: []string{"a"}, Locks: []bool{false}}),
				c.send(ctx, stepDescriptors, nil, 0, 1))
		}},
		{"0 descriptors have come", func(c *conn) error {
			return errors.Join(c.send(ctx, stepHello, Hello{Format: Format, Listeners: []string{"a"}, Locks: []bool{false}}),
				c.send(ctx, stepDescriptors, nil))
		}},
	} {
		p := newTestPair(t)
		if err := c.send(p.s.conn); err != nil {
			t.Fatal(err)
		}
		says(t, p.p.hear(ctx), c.says)
	}

	p := newTestPair(t)
	if err := p.s.conn.send(ctx, stepHello, Hello{Version: strings.Repeat("x", maxPacket)}); err == nil {
		t.Error("a message of any size can be sent")
	}
	if _, err := p.s.conn.Write(make([]byte, maxPacket+1)); err != nil {
		t.Fatal(err)
	}
	says(t, p.p.hear(ctx), "too long")

	for want, send := range map[string]func(c *conn) error{
		"without its memory": func(c *conn) error { return c.send(ctx, stepEstate, Estate{}) },
		"5 bytes were announced, and 4 are there": func(c *conn) error {
			return c.send(ctx, stepEstate, Estate{Size: 5}, int(memory(t, "1234").Fd()))
		},
		"-1 bytes were announced": func(c *conn) error { return c.send(ctx, stepEstate, Estate{Size: -1}, int(memory(t, "").Fd())) },
	} {
		p := newTestPair(t)
		p.greets()
		if err := send(p.s.conn); err != nil {
			t.Fatal(err)
		}
		_, _, _, err := p.p.Receive(ctx)
		says(t, err, want)
	}
}

// If the successor has too few descriptors, those that did not fit are missed, and those that did are closed.
func TestTooFewDescriptors(t *testing.T) {
	p := newTestPair(t)
	p.greets()
	ctx := within(t)
	file := memory(t, "")
	if err := p.s.conn.send(ctx, stepEstate, Estate{Descriptors: 20}, int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	_, _, descriptors, err := p.p.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var twenty []int
	for range 20 {
		twenty = append(twenty, int(file.Fd()))
	}
	if err := p.s.conn.sendDescriptors(ctx, twenty); err != nil {
		t.Fatal(err)
	}
	before := openDescriptors(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	next, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(next)
	low := unix.Rlimit{Cur: uint64(next + 3), Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err = descriptors.Next(ctx)
	if failed := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); failed != nil {
		t.Fatal(failed)
	}
	says(t, err, "limit on open files")
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors are open, and before it were %d", after, before)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Descriptors that are in flight count for the user: when they are too many, those who send them wait until some have arrived.
func TestManyInFlight(t *testing.T) {
	p := newTestPair(t)
	p.greets()
	ctx := within(t)
	const count = 5000
	file := memory(t, "")
	fds := make([]int, count)
	for i := range fds {
		fds[i] = int(file.Fd())
	}
	p.does(func() error {
		_, err := p.s.HandOver(ctx, Estate{}, file, fds)
		return err
	}, func() error {
		_, _, descriptors, err := p.p.Receive(ctx)
		for err == nil && descriptors.Left() > 0 {
			var fd int
			if fd, err = descriptors.Next(ctx); err == nil {
				_ = unix.Close(fd)
			}
		}
		return errors.Join(err, p.p.conn.send(ctx, stepReady, verified{}))
	})
}

// Which descriptor the environment names is for the successor alone.
func TestInheritNonsense(t *testing.T) {
	if p, err := Inherit(t.Context()); p != nil || err != nil {
		t.Errorf("without the variable: %v, %v", p, err)
	}
	file := memory(t, "")
	for _, text := range []string{"", "x", "1", "-3", "9999", "7.5"} {
		t.Setenv(Variable, text)
		_, err := Inherit(t.Context())
		says(t, err, Variable, "unset it")
		if _, set := os.LookupEnv(Variable); set {
			t.Errorf("%q: the variable is still there", text)
		}
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(Variable, strconv.Itoa(fd))
	_, err = Inherit(t.Context())
	says(t, err, Variable, "unset it")
}
