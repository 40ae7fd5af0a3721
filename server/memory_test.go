package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// A server of which clients may take very little memory.
const scarceMemory = minMaxMemory

func startScarce(t *testing.T, loops int, change func(*Config)) *daemon {
	t.Helper()
	return startDaemon(t, func(cfg *Config) {
		cfg.Loops, cfg.MaxMemory, cfg.MaxKeyBytes = loops, scarceMemory, 1<<30
		if change != nil {
			change(cfg)
		}
	})
}

// wantMemory waits until clients take at most that much memory.
func (d *daemon) wantMemory(most int64) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		if st := d.status(); st.MemoryBytes > most || st.MemoryLimitBytes != d.server.budget.limit {
			return fmt.Errorf("%d of %d bytes are in use, want at most %d", st.MemoryBytes, st.MemoryLimitBytes, most)
		}
		return nil
	})
}

// useUp has a client lock keys until it is refused, and returns how many it got.
func useUp(t *testing.T, c *prototest.Client, prefix string) (keys int) {
	t.Helper()
	const batch = 500
	for {
		var text strings.Builder
		for i := range batch {
			fmt.Fprintf(&text, "lock %s%d 0\r\n", prefix, keys+i)
		}
		c.Write([]byte(text.String()))
		refused := false
		for range batch {
			switch line, err := c.ReadReply(); {
			case err != nil:
				t.Fatal(err)
			case line == "l locked" && !refused:
				keys++
			case line == "e out of memory":
				refused = true
			default: // a lock after one that was refused may find room again, on another loop
				keys++
			}
		}
		if refused {
			return keys
		}
	}
}

// One client uses up the memory by keys. The others keep what they hold, go on waiting, and give up keys; nobody gets a new one,
// nobody new comes in. When there is memory again, all is as before.
func TestMaxMemory(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startScarce(t, loops, nil)
			holder, waiter, hog := d.dial(), d.dial(), d.dial()
			holder.Do("lock a 0", "l locked")
			holder.Do("lock b 0", "l locked")
			waiter.Send("lock a 300000")
			d.awaitWaiters(1)
			keys := useUp(t, hog, "hog")
			if took := keys * 144; took < scarceMemory*3/4 || took > scarceMemory*9/8 {
				t.Errorf("%d keys, which take %d bytes, use up %d", keys, took, scarceMemory)
			}
			hits := d.status().Counters.LimitHits[api.LimitMemory]
			for range 3 {
				holder.Do("lock c 0", "e out of memory")
				holder.Do("lock hog1 1000", "e out of memory")
				holder.Do("lock hog1 0", "t timeout")
				holder.Do("lock b 1000", "e already locked")
				refused := d.dial()
				refused.Expect("e out of memory")
				refused.ExpectEnd()
				refused.Close()
			}
			d.wantHits(api.LimitMemory, hits+9)
			if n := d.status().Counters.Refused[api.RefusedMaxMemory]; n != 3 {
				t.Errorf("%d connections are counted as refused, want 3", n)
			}
			holder.Do("unlock a", "u unlocked")
			waiter.Expect("l locked")
			waiter.Do("lock b 0", "t timeout")
			holder.Do("unlock b", "u unlocked")
			waiter.Do("unlock a", "u unlocked")

			hog.Close()
			d.wantMemory(scarceMemory / 4)
			eventually(t, func() error {
				holder.Send("lock c 0", "unlock c")
				if line, err := holder.ReadReply(); line != "l locked" {
					_, _ = holder.ReadReply()
					return fmt.Errorf("%q: %w", line, err)
				}
				_, err := holder.ReadReply()
				return err
			})
			d.dial().Do("lock c 1000", "l locked")
			if used := d.log.containing("the memory is used up"); len(used) != 1 {
				t.Errorf("the log says %q", used)
			}
		})
	}
}

// Many clients send on while they wait. What is kept of that is bounded in sum, the holder's unlock is read, and everything
// that was sent is answered in the end.
func TestMaxMemoryPending(t *testing.T) {
	const (
		clients  = 200
		commands = 500 // of each: 400 KiB, of which 256 KiB may be pending
	)
	unlock := "unlock " + strings.Repeat("x", 800) + "\r\n"
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startScarce(t, loops, nil)
			holder := d.dial()
			holder.Do("lock hot 0", "l locked")
			var waiters []*prototest.Client
			for range clients {
				c := d.dial()
				c.Send("lock hot 300000")
				waiters = append(waiters, c)
			}
			d.awaitWaiters(clients)
			text := bytes.Repeat([]byte(unlock), commands)
			var senders sync.WaitGroup
			for _, c := range waiters {
				senders.Go(func() { _, _ = c.Stream().Write(append(text, "unlock hot\r\n"...)) })
			}
			for range 20 {
				d.wantBounded()
				holder.Do("lock hot 0", "e already locked")
			}
			holder.Do("unlock hot", "u unlocked")
			want := "l locked\r\n" + strings.Repeat(proto.NotLocked.Line(), commands) + "u unlocked\r\n"
			var readers sync.WaitGroup
			for _, c := range waiters {
				readers.Go(func() {
					got := make([]byte, len(want))
					if _, err := io.ReadFull(c.Stream(), got); err != nil || string(got) != want {
						t.Errorf("the answers are wrong, or end early: %v", err)
					}
				})
			}
			readers.Wait()
			senders.Wait()
			d.wantMemory(2 * clients * connectionSize)
		})
	}
}

// wantBounded fails the test if clients take much more memory than they may.
func (d *daemon) wantBounded() {
	d.tb.Helper()
	if used := d.status().MemoryBytes; used > scarceMemory*2 {
		d.tb.Errorf("%d bytes are in use, of at most %d", used, scarceMemory)
	}
}

// Many clients do not read their answers. What is kept of these is bounded in sum, others are served, and all is answered when
// they read.
func TestMaxMemoryUnread(t *testing.T) {
	const clients = 40
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startScarce(t, loops, nil)
			holder := d.dial()
			holder.Do("lock hot 0", "l locked")
			const commands = 40_000 // whose answers the kernel has no room for
			text := bytes.Repeat([]byte("unlock hot\r\n"), commands)
			var deaf []*net.TCPConn
			for range clients {
				deaf = append(deaf, d.dialNarrow())
			}
			d.wantConnections(clients + 1)
			var senders sync.WaitGroup
			for _, c := range deaf {
				senders.Go(func() { _, _ = c.Write(text) })
			}
			for range 20 {
				d.wantBounded()
				holder.Do("lock hot 0", "e already locked")
			}
			holder.Do("unlock hot", "u unlocked")
			holder.Close()
			var readers sync.WaitGroup
			for _, c := range deaf {
				readers.Go(func() { wantCommandsAnswered(t, c, commands) })
			}
			readers.Wait()
			senders.Wait()
			d.wantMemory(2 * clients * connectionSize)
		})
	}
}

// wantCommandsAnswered reads so many answers, each of which says that the key is not the client's.
func wantCommandsAnswered(t *testing.T, conn net.Conn, commands int) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for left := commands; left > 0; {
		n, err := conn.Read(buf)
		if err != nil {
			t.Errorf("%d answers are missing: %v", left, err)
			return
		}
		left -= bytes.Count(buf[:n], []byte{'\n'})
	}
}
