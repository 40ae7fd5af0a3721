package reactor

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// Reading goes on after the ciphertext has ended, wherever that was: crypto/tls does not take the wire's error for a
// permanent one. All of TLS on a loop rests on this.
func TestTLSSplit(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		s := secure(t, version)
		s.expectOpen(nil, "")
		for cut, n := 0, 0; cut <= n; cut++ {
			command := fmt.Sprintf("lock k%d 1000\r\n", cut)
			records := append(s.records(command), s.records(command+"unlock")...)
			n = len(records)
			s.got = s.got[:0]
			for _, piece := range [][]byte{records[:cut], nil, records[cut:]} {
				if err := s.open(piece); err != nil {
					t.Fatalf("cut at %d of %d: %v", cut, n, err)
				}
			}
			if want := command + command + "unlock"; string(s.got) != want {
				t.Fatalf("cut at %d of %d: received %q, want %q", cut, n, s.got, want)
			}
			s.expectRead(s.server.seal(nil, []byte("l locked\r\n")), "l locked\r\n")
		}
		s.got = s.got[:0]
		for _, b := range s.records("lock a 0\r\n") {
			if err := s.open([]byte{b}); err != nil {
				t.Fatalf("byte by byte: %v", err)
			}
		}
		if string(s.got) != "lock a 0\r\n" {
			t.Fatalf("byte by byte: received %q", s.got)
		}
	})
}

// Long input and output, in pieces of any length, arrive as they were.
func TestTLSLong(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		s := secure(t, version)
		text := strings.Repeat("lock abcdefghij 1000\r\n", 20_000)
		var answers []byte
		for records := s.records(text); len(records) > 0; {
			n := min(1+random.IntN(64<<10), len(records))
			err := s.server.open(records[:n], &s.scratch, func(plain []byte) bool {
				answers = s.server.seal(answers, plain) // from inside, as a session answers
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			records = records[n:]
		}
		s.expectRead(answers, text)
	})
}

// take can stop. What is left comes with the next calls, and lies in memory of its own meanwhile.
func TestTLSStop(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		s := secure(t, version)
		var want, got []string
		var buf []byte        // of the loop, which uses it again
		for i := range 1000 { // more than crypto/tls reads ahead
			want = append(want, fmt.Sprintf("lock k%d 0\r\n", i))
			buf = append(buf, s.records(want[i])...)
		}
		open := func(ciphertext []byte) {
			t.Helper()
			if err := s.server.open(ciphertext, &s.scratch, func(plain []byte) bool {
				got = append(got, string(plain))
				return false
			}); err != nil {
				t.Fatalf("after %d pieces: %v", len(got), err)
			}
		}
		cut := len(buf) - 3
		rest := bytes.Clone(buf[cut:])
		open(buf[:cut])
		clear(buf)
		open(nil)
		open(rest)
		clear(rest)
		for range want {
			open(nil)
		}
		if !slices.Equal(got, want) {
			t.Errorf("received %q, want %q", got, want)
		}
	})
}

// After the peer's close_notify it can still be answered. It sees the end of our side as such.
func TestTLSCloseNotify(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		s := secure(t, version)
		records := s.records("lock a 0\r\n")
		s.client.CloseWrite()
		records = append(records, s.wire.takeOutput()...)
		if err := s.server.open(records, &s.scratch, func(plain []byte) bool {
			s.got = append(s.got, plain...)
			return false // the end is seen later
		}); err != nil || string(s.got) != "lock a 0\r\n" {
			t.Fatalf("received %q, %v", s.got, err)
		}
		for range 3 {
			if err := s.open(nil); err != io.EOF { //nolint:errorlint // it is not wrapped
				t.Fatalf("after close_notify: %v", err)
			}
		}
		s.expectRead(s.server.seal(nil, []byte("l locked\r\n")), "l locked\r\n")
		end := s.server.closeNotify(nil)
		if more := s.server.seal(s.server.closeNotify(nil), []byte("u unlocked\r\n")); len(more) > 0 {
			t.Errorf("%d bytes follow close_notify", len(more))
		}
		if err := s.readError(end); err != io.EOF { //nolint:errorlint // it is not wrapped
			t.Errorf("the client takes it for %v", err)
		}
	})
}

// An answer and the end can leave in one write.
func TestTLSAppends(t *testing.T) {
	s := secure(t, tls.VersionTLS13)
	out := s.server.closeNotify(s.server.seal(s.server.seal(nil, []byte("l locked\r\n")), nil))
	s.expectRead(out, "l locked\r\n")
	if err := s.readError(nil); err != io.EOF { //nolint:errorlint // it is not wrapped
		t.Errorf("after close_notify: %v", err)
	}
}

// A record in which one byte is not what was sent never gets through. The peer is told, unless more was to come.
func TestTLSCorruption(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		server, client := configs(t, version)
		for i, n := 0, 1; i < n; i++ {
			s := secureWith(t, server, client)
			records := append(s.records("lock a 0\r\n"), s.records("lock b 0\r\n")...)
			n = len(records) / 2
			records[i] ^= 1 << (i % 8)
			err := s.open(records)
			if len(s.got) > 0 {
				t.Fatalf("with byte %d changed, %q is received", i, s.got)
			}
			if err == nil { // a length that is too great
				continue
			}
			if again := s.open(s.records("lock c 0\r\n")); again != err { //nolint:errorlint // the same one
				t.Errorf("after %v: %v", err, again)
			}
			if told := s.readError(s.server.seal(nil, []byte("l locked\r\n"))); !strings.Contains(told.Error(), "remote error: tls:") {
				t.Errorf("after %v the client is told %v", err, told)
			}
		}
	})
}

// What is not TLS at all is an error, and nothing else.
func TestTLSGarbage(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
		garbage := []string{"lock a 0\r\n", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\x00", 100), strings.Repeat("\xff", 100)}
		for _, typ := range []string{"\x14", "\x15", "\x16", "\x17", "\x18"} { // of records
			for _, length := range []string{"\x00\x00", "\x00\x01", "\x00\x30", "\x41\x00", "\xff\xff"} {
				noise := make([]byte, 70_000)
				random.Read(noise)
				garbage = append(garbage, typ+"\x03\x03"+length+string(noise))
			}
		}
		server, client := configs(t, version)
		for _, text := range garbage {
			s := secureWith(t, server, client)
			if err := s.open([]byte(text)); err == nil || len(s.got) > 0 {
				t.Errorf("%.20q: received %q, %v", text, s.got, err)
			}
		}
	})
}

// What an idle connection costs, with and without a client certificate.
func TestTLSMemory(t *testing.T) {
	const connections, bound = 50, 24 << 10
	eachVersion(t, func(t *testing.T, version uint16) {
		for _, auth := range []tls.ClientAuthType{tls.NoClientCert, tls.RequireAndVerifyClientCert} {
			server, client := configs(t, version)
			server.ClientAuth = auth
			var idle [connections]*TLS
			before := heap()
			for i := range idle {
				s := secureWith(t, server, client)
				buf := append(make([]byte, 0, bound), s.records("lock a 0\r\n")...) // which must not be kept
				s.expectOpen(buf, "lock a 0\r\n")
				s.expectRead(s.server.seal(nil, []byte("l locked\r\n")), "l locked\r\n")
				idle[i] = s.server
			}
			each := (heap() - before) / connections
			t.Logf("%s: %d bytes", auth, each)
			if each > bound {
				t.Errorf("%s: %d bytes, want at most %d", auth, each, bound)
			}
			runtime.KeepAlive(&idle)
		}
	})
}

// heap returns how much memory is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one has left in pools
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// The cost of a command and its answer.
func BenchmarkTLS(b *testing.B) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b.Run(tls.VersionName(version), func(b *testing.B) {
			s := secure(b, version)
			const batch = 4096
			answer, out := []byte("l locked\r\n"), make([]byte, 0, 1024)
			var records []byte
			var length int
			b.ReportAllocs()
			for b.Loop() {
				if len(records) == 0 {
					b.StopTimer()
					for range batch {
						s.client.Write([]byte("lock a 1000\r\n"))
					}
					records = s.wire.takeOutput()
					length = len(records) / batch
					b.StartTimer()
				}
				err := s.server.open(records[:length], &s.scratch, func([]byte) bool {
					out = s.server.seal(out[:0], answer)
					return true
				})
				if err != nil {
					b.Fatal(err)
				}
				records = records[length:]
			}
		})
	}
}
