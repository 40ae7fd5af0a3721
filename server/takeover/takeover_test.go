package takeover

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A whole takeover: what is said arrives, and the descriptors are those that were sent.
func TestTakeover(t *testing.T) {
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	first, passed := listen(t, "tcp:a", nil)
	_, locked := listen(t, "unix:b", lock)
	pair := newTestPair(t)
	pair.greets(passed, locked)
	p := pair.p
	if p.Format != Format || p.Version != "old" || p.PID != os.Getpid() || p.Loops != 2 || p.Connections != 5 {
		t.Errorf("hello is %+v", p.Hello)
	}
	if l := p.TakeKey("unix:b"); l == nil || l.Lock == nil || !sameDescription(t, l.Lock, lock) {
		t.Errorf("the locked listener is %+v", l)
	} else {
		l.Close()
	}
	if l := p.TakeKey("unix:b"); l != nil {
		t.Errorf("it can be taken twice: %+v", l)
	}
	serves(t, p.TakeKey("tcp:a"), first)
	if l := p.Take(func(*Listener) bool { return true }); l != nil {
		t.Errorf("a listener is left: %+v", l)
	}

	const count = 2*maxDescriptors + 1
	var fds []int
	var names []string
	for range count {
		file := memory(t, "")
		fds, names = append(fds, int(file.Fd())), append(names, inode(t, int(file.Fd())))
	}
	ctx := within(t)
	estate := memory(t, "everything")
	pair.does(func() error {
		digest, err := pair.s.HandOver(ctx, Estate{Since: 3}, estate, fds)
		if err != nil || string(digest) != "digest" {
			t.Errorf("the digest is %q, %v", digest, err)
		}
		return pair.s.Commit(ctx)
	}, func() error {
		got, announced, descriptors, err := p.Receive(ctx)
		if err != nil {
			return err
		}
		if string(got) != "everything" || announced.Since != 3 {
			t.Errorf("the estate is %q, since %d", got, announced.Since)
		}
		var came []string
		for descriptors.Left() > 0 {
			fd, err := descriptors.Next(ctx)
			if err != nil {
				return err
			}
			if !isCloseOnExec(t, fd) {
				t.Errorf("a child would inherit descriptor %d", fd)
			}
			came = append(came, inode(t, fd))
			_ = unix.Close(fd)
		}
		if !slices.Equal(came, names) {
			t.Errorf("the descriptors are not those that were sent, or not in their order")
		}
		return p.TakeOver(ctx, []byte("digest"))
	})
	select {
	case <-p.Serving():
	default:
		t.Error("the successor does not know that it serves")
	}
	pair.s.Leave()
	if !p.AwaitEnd(ctx, func() { t.Error("the predecessor is killed") }) || pair.parent.waited {
		t.Error("the successor has not seen that the predecessor has left")
	}
	<-p.Left()
}

// A predecessor that does not leave is killed, and then it has left, even if something that it has started has its end of the pair.
func TestPredecessorHangs(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		pair := newTestPair(t)
		pair.parent.leaves = leaves
		pair.p.leave = time.Millisecond
		told := 0
		if left := pair.p.AwaitEnd(within(t), func() { told++ }); !left || !pair.parent.killed || told != 1 {
			t.Errorf("left: %t, killed: %t, told of it %d times", left, pair.parent.killed, told)
		}
		<-pair.p.Left()
	}
}

// serves fails the test unless a client of the listener reaches who accepts from what was passed of it.
func serves(t *testing.T, passed *Listener, original net.Listener) {
	t.Helper()
	if passed == nil {
		t.Fatal("the listener was not passed")
	}
	l, err := passed.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := original.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if !isNonblock(t, fd) {
			t.Error("the listener of the predecessor blocks since it was passed")
		}
	})
	client, err := net.Dial("tcp", original.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = served.Close()
}

// inode names what a descriptor leads to.
func inode(t *testing.T, fd int) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return string(rune(st.Ino)) + "/" + string(rune(st.Dev))
}

// sameDescription reports whether two files share their position, and so also their lock.
func sameDescription(t *testing.T, a, b *os.File) bool {
	t.Helper()
	if _, err := a.Seek(42, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	at, err := b.Seek(0, io.SeekCurrent)
	return err == nil && at == 42
}

// A refusal carries its reason, at each step.
func TestRefusal(t *testing.T) {
	pair := newTestPair(t)
	ctx := within(t)
	pair.does(func() error {
		_, err := pair.s.Greet(ctx, Hello{}, nil)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != "too few descriptors" {
			t.Errorf("greet: %v, want the refusal", err)
		}
		return nil
	}, func() error {
		err := pair.p.hear(ctx)
		pair.p.Refuse(errors.New("too few descriptors"))
		return err
	})

	pair = newTestPair(t)
	pair.greets()
	pair.does(func() error {
		_, err := pair.s.HandOver(ctx, Estate{}, memory(t, ""), nil)
		says(t, err, "refuses: no such holder")
		return nil
	}, func() error {
		_, _, _, err := pair.p.Receive(ctx)
		pair.p.Refuse(errors.New("no such holder"))
		return err
	})

	var none *Predecessor
	none.Refuse(errors.New("nobody to tell"))
}
