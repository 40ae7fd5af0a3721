package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// A syntax error in the middle of a pipeline: what comes before is answered, what comes after is not executed, the
// connection ends, and what it held is free.
func TestSyntaxErrorInPipeline(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			d.pairs(func(conn, keyLoop int) {
				keys := d.keysOf(keyLoop, 2)
				held := d.keysOf(loops-1-keyLoop, 3)[2]
				waiter := d.dial()
				for _, oneByOne := range []bool{false, true} {
					c := d.dialOn(conn)
					text := "lock " + held + " 0\r\nlock " + keys[0] + " 0\r\nlock " + keys[0] + " 0\r\nbad\r\nunlock " + keys[0] +
						"\r\nlock " + keys[1] + " 0\r\n"
					if oneByOne {
						for i := range strings.Index(text, "bad") + 1 {
							c.Write([]byte(text[i : i+1]))
						}
					} else {
						c.Write([]byte(text))
					}
					c.Expect("l locked", "l locked", "e already locked")
					c.ExpectEnd()
					for _, key := range []string{held, keys[0], keys[1]} {
						waiter.Do("lock "+key+" 600000", "l locked")
						waiter.Do("unlock "+key, "u unlocked")
					}
				}
				waiter.Close()
			})
			d.wantConnections(0)
		})
	}
}

// A syntax error behind a command that waits counts only when the wait is over.
func TestSyntaxErrorBehindWait(t *testing.T) {
	d := startDaemon(t, nil)
	cs := d.canaries()
	for _, end := range []string{"l locked", "t timeout"} {
		d.pairs(func(conn, keyLoop int) {
			keys := d.keysOf(keyLoop, 2)
			holder, c, next := d.dial(), d.dialOn(conn), d.dial()
			holder.Do("lock "+keys[0]+" 0", "l locked")
			c.Do("lock "+keys[1]+" 0", "l locked")
			if end == "l locked" {
				c.Send("lock "+keys[0]+" 600000", "bad", "unlock "+keys[1])
				cs.pass(conn, keyLoop)
				next.Do("unlock "+keys[1], "e not owner")
				holder.Do("unlock "+keys[0], "u unlocked")
			} else {
				c.Send("lock "+keys[0]+" 20", "bad", "unlock "+keys[1])
			}
			c.Expect(end)
			c.ExpectEnd()
			next.Do("lock "+keys[1]+" 600000", "l locked")
			holder.Close()
			next.Close()
			d.wantFree(keys...)
		})
	}
	d.wantConnections(len(cs.clients))
}

// Whatever comes that is not the protocol ends the connection, and is named in the log: who, why, and the bytes.
func TestGarbage(t *testing.T) {
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	cases := []struct {
		name, text, reason string
		column             float64
	}{
		{"binary", string(everyByte), "want lock, unlock, fence, name or owner", 1},
		{"zeros", strings.Repeat("\x00", 1<<20), "want lock, unlock, fence, name or owner", 1},
		{"a very long word", strings.Repeat("A", 1<<20), "want lock, unlock, fence, name or owner", 1},
		{"a very long key", "lock " + strings.Repeat("A", 1<<20), "command too long", 10001},
		{"very many spaces", "lock " + strings.Repeat(" ", 1<<20), "command too long", 10001},
		{"very many digits", "lock a " + strings.Repeat("0", 1<<20), "command too long", 10001},
		{"http", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "want lock, unlock, fence, name or owner", 1},
		{"tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(everyByte), "want lock, unlock, fence, name or owner", 1},
		{"empty line", "\r\n", "want lock, unlock, fence, name or owner", 1},
		{"line feed", "unlock a\n", "want a letter, a digit, a space or CR LF", 9},
		{"carriage return", "unlock a\rx", "want LF", 10},
		{"tab", "lock\ta 0\r\n", "want a space", 5},
		{"leading space", " lock a 0\r\n", "want lock, unlock, fence, name or owner", 1},
		{"sign", "lock a -1\r\n", "want a space or a timeout of digits", 8},
		{"fraction", "lock a 1.5\r\n", "want a digit, a space or CR LF", 9},
		{"no timeout", "lock a\r\n", "want a letter, a digit or a space", 7},
		{"too much", "lock a 1 2\r\n", "want a space or CR LF", 10},
		{"utf-8", "lock schlüssel 0\r\n", "want a letter, a digit or a space", 10},
		{"log injection", "lock a\"\n{\"level\":\"fatal\"}\r\n", "want a letter, a digit or a space", 7},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			d := startDaemon(t, nil)
			c := d.dial()
			c.Do("lock mine 0", "l locked")
			// The server may end the connection before it has taken everything.
			_, _ = c.Conn().Write([]byte(tc.text))
			c.ExpectEnd()
			d.wantFree("mine", "a")
			d.wantConnections(0)
			lines := d.log.containing(`"level":"warn"`)
			if len(lines) != 1 {
				t.Fatalf("want one warning, got %q", lines)
			}
			var line struct {
				Client, Reason, At, Hint, Message string
				Column                            float64
			}
			if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
				t.Fatalf("%q: %v", lines[0], err)
			}
			if line.Client != c.Conn().LocalAddr().String() || line.Reason != tc.reason || line.Column != tc.column {
				t.Errorf("want client %s, %q at column %v, got %+v", c.Conn().LocalAddr(), tc.reason, tc.column, line)
			}
			if want := refusedAs(t, tc.text, len(tc.text)); line.Hint != want {
				t.Errorf("the hint is %q, want %q", line.Hint, want)
			}
			if line.At == "" || len(line.At) > 6*maxQuoted || len(lines[0]) > 600 || strings.Count(lines[0], "\n") != 1 {
				t.Errorf("the warning must quote a piece of it in one line: %q", lines[0])
			}
		})
	}
}

// A burst of bad clients does not fill the disk with warnings, and nothing of them stays.
func TestBurstOfBadClients(t *testing.T) {
	d := startDaemon(t, nil)
	start := time.Now()
	var clients sync.WaitGroup
	for range 10 {
		clients.Go(func() {
			for range 100 {
				c := prototest.Dial(t, d.address)
				_, _ = c.Conn().Write([]byte("lock mine 0\r\nhello\r\n"))
				_, _ = io.Copy(io.Discard, c.Conn())
				c.Close()
			}
		})
	}
	clients.Wait()
	d.wantConnections(0)
	d.wantFree("mine")
	seconds := int(time.Since(start)/time.Second) + 1
	lines := d.log.containing(`"message":"client dropped: syntax error"`)
	if n := len(lines); n < 10 || n > 10*seconds+10 {
		t.Errorf("1000 bad clients in %d s wrote %d lines", seconds, n)
	}
	d.stop()
	left := 0
	for _, text := range d.log.containing(`"from":"127.0.0.1"`, `"warning":"client dropped: syntax error"`) {
		var line struct{ Lines int }
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		left += line.Lines
	}
	if left+len(lines) != 1000 {
		t.Errorf("the log tells of %d bad clients, %d of them left out, want 1000", left+len(lines), left)
	}
}

// One noisy client does not hide what another one does wrong, and the log says how much it leaves out.
func TestNoisyClient(t *testing.T) {
	d := startDaemon(t, nil)
	noisy := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: prototest.Patience}
	for range 200 {
		conn, err := noisy.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	c := d.dial()
	c.Write([]byte("lok a 0\r\n"))
	c.ExpectEnd()
	eventually(t, func() error {
		if n := len(d.log.containing("client dropped: syntax error", c.Conn().LocalAddr().String())); n != 1 {
			return fmt.Errorf("%d lines about the other client, want 1", n)
		}
		if len(d.log.containing("left out", `"from":"127.0.0.2"`, `"lines":`)) == 0 {
			return errors.New("it does not say what it leaves out")
		}
		return nil
	})
}

// A syntax error behind answers that the client has not read yet does not lose them.
func TestSyntaxErrorBehindUnreadAnswers(t *testing.T) {
	for _, maxOutput := range []int{256 << 10, 4 << 10} {
		t.Run(fmt.Sprintf("max-output=%d", maxOutput), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.MaxOutput = maxOutput })
			cs := d.canaries()
			for conn := range 2 {
				c := d.dialNarrowOn(conn)
				held := d.keysOf(1-conn, 9)[8]
				text := makeCycle(0, d.keysOf(conn, 4)...)
				const cycles = 2000 // 400 KB of answers
				lines := append(bytes.Repeat(text.commands, cycles), "lock "+held+" 0\r\nb"...)
				var sender sync.WaitGroup
				sender.Go(func() { _, _ = c.Write(lines) })
				cs.passAll()
				if err := text.wantAnswers(c, cycles); err != nil {
					t.Fatal(err)
				}
				locked := make([]byte, len("l locked\r\n"))
				if _, err := io.ReadFull(c, locked); err != nil || string(locked) != "l locked\r\n" {
					t.Fatalf("got %q, %v", locked, err)
				}
				if err := wantEOF(c); err != nil {
					t.Fatal(err)
				}
				sender.Wait()
				d.wantFree(append(d.keysOf(conn, 4), held)...)
				_ = c.Close()
			}
			d.wantConnections(len(cs.clients))
		})
	}
}

// The keys are free at once, not only when the client has read its answers. It waits first, so that all of it is
// executed at once: what comes behind unread answers is not even read.
func TestSyntaxErrorFreesBeforeAnswersAreRead(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxPipeline, cfg.MaxOutput = 4<<20, 4<<20 })
	cs := d.canaries()
	for conn := range 2 {
		holder, c := d.dial(), d.dialNarrowOn(conn)
		keys := []string{d.keysOf(conn, 1)[0], d.keysOf(1-conn, 1)[0]}
		awaited := d.keysOf(1-conn, 2)[1]
		holder.Do("lock "+awaited+" 0", "l locked")
		fmt.Fprintf(c, "lock %s 0\r\nlock %s 0\r\nlock %s 600000\r\n", keys[0], keys[1], awaited)
		text := makeCycle(0, d.keysOf(conn, 4)[3])
		const cycles = 14000 // 750 KB of answers
		if err := text.flood(c, cycles); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "b")
		d.wantRead(c)
		cs.passAll()
		holder.Do("unlock "+awaited, "u unlocked")
		d.wantFree(append(keys, awaited)...)
		d.wantConnections(len(cs.clients) + 2) // its answers have not been read
		first := make([]byte, len("l locked\r\n")*3)
		if _, err := io.ReadFull(c, first); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(text.wantAnswers(c, cycles), wantEOF(c)); err != nil {
			t.Fatal(err)
		}
		holder.Close()
		d.wantConnections(len(cs.clients))
	}
}
