package proto

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkNext measures Next as a server calls it. ns/op is per input; an input is one command unless its name says
// otherwise.
func BenchmarkNext(b *testing.B) {
	pipeline := strings.Repeat("lock key123 1000\r\nunlock key123\r\n", 16)
	long := "lock " + strings.Repeat("k", 1000) + " 1000\r\n"
	for _, bm := range []struct {
		name  string
		input []string // fragments
	}{
		{"lock", []string{"lock key123 1000\r\n"}},
		{"lock-mixed-case", []string{"LoCk key123 1000\r\n"}},
		{"unlock", []string{"unlock key123\r\n"}},
		{"fence", []string{"fence key123\r\n"}},
		{"lock-fence-unlock", []string{"lock key123 1000\r\nfence key123\r\nunlock key123\r\n"}},
		{"two-spaces", []string{"lock  key123 1000\r\n"}},
		{"pipeline32", []string{pipeline}},
		{"byte-at-a-time", strings.Split("lock key123 1000\r\n", "")},
		{"keyword-split", []string{"lo", "ck key123 1000\r\n"}},
		{"key-split", []string{"lock key", "123 1000\r\n"}},
		{"timeout-split", []string{"lock key123 10", "00\r\n"}},
		{"long-key", []string{long}},
		{"long-key-split", []string{long[:500], long[500:]}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			var p Parser
			var cmd Command
			var fragments [][]byte
			size := 0
			for _, s := range bm.input {
				fragments = append(fragments, []byte(s))
				size += len(s)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				for _, data := range fragments {
					for len(data) > 0 {
						n, status := p.Next(data, &cmd)
						if status == Invalid {
							b.Fatal(p.Err())
						}
						data = data[n:]
					}
				}
			}
			if !idle(&p) {
				b.Fatal("not idle")
			}
		})
	}
}

// BenchmarkStraightforward parses some of the inputs of BenchmarkNext with the standard library, and whole lines only, for
// comparison.
func BenchmarkStraightforward(b *testing.B) {
	for _, bm := range []struct{ name, input string }{
		{"lock", "lock key123 1000\r\n"},
		{"unlock", "unlock key123\r\n"},
		{"pipeline32", strings.Repeat("lock key123 1000\r\nunlock key123\r\n", 16)},
		{"long-key", "lock " + strings.Repeat("k", 1000) + " 1000\r\n"},
	} {
		b.Run(bm.name, func(b *testing.B) {
			input := []byte(bm.input)
			var cmd Command
			b.SetBytes(int64(len(input)))
			b.ReportAllocs()
			for b.Loop() {
				for data := input; len(data) > 0; {
					n, ok := straightforward(data, &cmd)
					if !ok {
						b.Fatal("syntax error")
					}
					data = data[n:]
				}
			}
		})
	}
}

func straightforward(data []byte, cmd *Command) (int, bool) {
	end := bytes.Index(data, []byte("\r\n"))
	if end < 0 {
		return 0, false
	}
	keyword, rest, _ := bytes.Cut(data[:end], []byte(" "))
	key, rest, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
	rest = bytes.Trim(rest, " ")
	if len(key) == 0 {
		return 0, false
	}
	for _, c := range key {
		if setOf[c]&(letters|digits) == 0 {
			return 0, false
		}
	}
	switch {
	case bytes.EqualFold(keyword, []byte("lock")):
		ms, err := strconv.ParseUint(string(rest), 10, 32)
		if err != nil {
			return 0, false
		}
		*cmd = Command{Kind: Lock, Arg: key, Timeout: time.Duration(ms) * time.Millisecond}
	case bytes.EqualFold(keyword, []byte("unlock")) && len(rest) == 0:
		*cmd = Command{Kind: Unlock, Arg: key}
	default:
		return 0, false
	}
	return end + len("\r\n"), true
}

func BenchmarkAppendLock(b *testing.B) {
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendLock(buf[:0], "key123", time.Second)
	}
	b.SetBytes(int64(len(buf)))
}
