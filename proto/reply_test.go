package proto

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every reply on the wire, and what a client makes of it.
func TestReplies(t *testing.T) {
	for _, tc := range []struct {
		line    string
		outcome string
		want    Answer
	}{
		{"l locked\r\n", "locked", Answer{Reply: Locked}},
		{"t timeout\r\n", "timeout", Answer{Reply: TimedOut}},
		{"u unlocked\r\n", "unlocked", Answer{Reply: Unlocked}},
		{"o owned\r\n", "owned", Answer{Reply: Owned}},
		{"e already locked\r\n", "already_locked", Answer{Reply: AlreadyLocked, Text: "already locked"}},
		{"e not locked\r\n", "not_locked", Answer{Reply: NotLocked, Text: "not locked"}},
		{"e not owner\r\n", "not_owner", Answer{Reply: NotOwner, Text: "not owner"}},
		{"e kicked\r\n", "kicked", Answer{Reply: Kicked, Text: "kicked"}},
		{"e deadlock\r\n", "deadlock", Answer{Reply: Deadlock, Text: "deadlock"}},
		{"e too many keys\r\n", "too_many_keys", Answer{Reply: TooManyKeys, Text: "too many keys"}},
		{"e out of memory\r\n", "out_of_memory", Answer{Reply: OutOfMemory, Text: "out of memory"}},
		{"e too many connections\r\n", "too_many_connections", Answer{Reply: TooManyConnections, Text: "too many connections"}},
		{"f 1\r\n", "token", Answer{Reply: Token, Token: 1}},
		{"f 9223372036854775807\r\n", "token", Answer{Reply: Token, Token: math.MaxInt64}},
		{"n named 60000 00000000000000af\r\n", "named", Answer{Reply: Named, Silence: time.Minute, Space: 0xaf}},
		{"n named 0 ffffffffffffffff\r\n", "named", Answer{Reply: Named, Space: math.MaxUint64}},
		{"n named 9223372036854 0123456789abcdef\r\n", "named", Answer{Reply: Named, Silence: MaxTimeout, Space: 0x0123456789abcdef}},
	} {
		got, err := ParseReply([]byte(tc.line))
		if got != tc.want || err != nil {
			t.Errorf("%q: got %+v, %v\nwant %+v", tc.line, got, err, tc.want)
		}
		if line := string(appendAnswer(nil, got)); line != tc.line {
			t.Errorf("%q: appended %q", tc.line, line)
		}
		if got := tc.want.Reply.Outcome(); got != tc.outcome {
			t.Errorf("%q: outcome %s, want %s", tc.line, got, tc.outcome)
		}
		if len(tc.line) > MaxReply {
			t.Errorf("%q is longer than MaxReply", tc.line)
		}
	}
}

// appendAnswer writes what ParseReply has read.
func appendAnswer(dst []byte, a Answer) []byte {
	switch a.Reply {
	case 0:
		return append(dst, "e "+a.Text+"\r\n"...)
	case Token:
		return AppendToken(dst, a.Token)
	case Named:
		return AppendNamed(dst, a.Silence, a.Space)
	}
	return a.Reply.Append(dst)
}

func TestNoReplies(t *testing.T) {
	for _, line := range []string{
		"", "\n", "\r\n", "l\r\n", "l locked", "l locked\n", "l locked\r", "l locked \r\n", " l locked\r\n", "L locked\r\n", "l locked\r\n\r\n",
		"f\r\n", "f \r\n", "f 0\r\n", "f 01\r\n", "f +1\r\n", "f -1\r\n", "f 1 \r\n", "f 1x\r\n",
		"f 9223372036854775808\r\n", "f 18446744073709551617\r\n",
		"f 99999999999999999999999999\r\n", "F 1\r\n", "f  1\r\n",
		"n named\r\n", "n named 1\r\n", "n named 1 \r\n", "n named 1 af\r\n", "n named 1 00000000000000AF\r\n", "n named 1 00000000000000ag\r\n",
		"n named 1 000000000000000af\r\n", "n named 01 00000000000000af\r\n", "n named  00000000000000af\r\n",
		"n named 9223372036855 00000000000000af\r\n", "n named 1 00000000000000af x\r\n",
		"e\r\n", "e \r\n", "e a\tb\r\n", "e \x7f\r\n", "e sch\xc3\xb6n\r\n", "e a\rb\r\n", "ekicked\r\n", "E kicked\r\n", "+PONG\r\n",
	} {
		if a, err := ParseReply([]byte(line)); !errors.Is(err, ErrReply) || a != (Answer{}) {
			t.Errorf("%q: got %+v, %v", line, a, err)
		}
	}
}

// An error of a newer server is an error.
func TestUnknownErrors(t *testing.T) {
	for _, text := range []string{"evicted", "e", " ", "a b ~!"} {
		a, err := ParseReply([]byte("e " + text + "\r\n"))
		if want := (Answer{Text: text}); a != want || err != nil {
			t.Errorf("%q: got %+v, %v", text, a, err)
		}
	}
}

// FuzzParseReply: a line that is understood is the one that is written for what was understood.
func FuzzParseReply(f *testing.F) {
	for r := Locked; int(r) < NumReplies; r++ {
		switch r {
		case Token:
			f.Add(AppendToken(nil, 42))
		case Named:
			f.Add(AppendNamed(nil, time.Minute, 0xaf))
		default:
			f.Add(r.Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := ParseReply(line)
		if err != nil {
			if !errors.Is(err, ErrReply) || a != (Answer{}) {
				t.Errorf("%q: %+v, %v", line, a, err)
			}
			return
		}
		if got := appendAnswer(nil, a); string(got) != string(line) {
			t.Errorf("%q was understood as %+v, which is %q", line, a, got)
		}
	})
}

func TestNumbersThenParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.Uint64Range(1, math.MaxInt64).Draw(t, "token")
		if a, err := ParseReply(AppendToken(nil, token)); err != nil || a != (Answer{Reply: Token, Token: token}) {
			t.Errorf("token %d: %+v, %v", token, a, err)
		}
		silence := time.Duration(rapid.Int64().Draw(t, "silence"))
		space := rapid.Uint64().Draw(t, "space")
		want := Answer{Reply: Named, Silence: max(0, silence.Truncate(ms)), Space: space}
		if a, err := ParseReply(AppendNamed(nil, silence, space)); err != nil || a != want {
			t.Errorf("silence %d, space %x: %+v, %v", silence, space, a, err)
		}
	})
}

// TestTable: each kind has what the table must say of it, and each reply that a command can have is one of a kind.
func TestTable(t *testing.T) {
	replied := map[Reply]bool{TooManyConnections: true}
	for k := Lock; int(k) < NumKinds; k++ {
		if strings.Trim(k.String(), "abcdefghijklmnopqrstuvwxyz") != "" || len(k.Replies()) == 0 {
			t.Errorf("%v: %v", k, k.Replies())
		}
		for i, a := range commands[k].arguments {
			if want := []role{toArg, toTimeout}[i]; a.role != want || a.max > MaxCommand || a.bytes == 0 {
				t.Errorf("%v: argument %d is %+v", k, i, a)
			}
		}
		for _, r := range k.Replies() {
			replied[r] = true
		}
		if got, want := k.HasKey(), commands[k].arguments[0].first == WantKey; got != want {
			t.Errorf("%v: HasKey is %t", k, got)
		}
	}
	outcomes := map[string]bool{}
	for r := Locked; int(r) < NumReplies; r++ {
		if !replied[r] {
			t.Errorf("%s: no kind of command has it", r.Outcome())
		}
		outcomes[r.Outcome()] = true
	}
	if len(outcomes) != NumReplies-1 {
		t.Errorf("outcomes %v", outcomes)
	}
	if got, want := Lock.Replies(), []Reply{Locked, TimedOut, AlreadyLocked, Kicked, Deadlock, TooManyKeys, OutOfMemory}; !slices.Equal(got, want) {
		t.Errorf("replies to a lock: %v", got)
	}
	if got := Reply(NumReplies).Outcome(); got != "Reply(15)" {
		t.Errorf("unknown reply: %s", got)
	}
}

// A keyword that is too long for a shortcut must not match by its beginning.
func TestLongKeywordHasNoShortcut(t *testing.T) {
	for word := range uint64(1 << 16) {
		if s := newShortcut("longlock"); (word|s.fold)&s.mask == s.word {
			t.Fatalf("%x matches", word)
		}
	}
	if s := newShortcut("holding"); (0x20_47_6e_49_64_4c_6f_48|s.fold)&s.mask != s.word { // HoLdInG and a space
		t.Errorf("the longest is not matched: %+v", s)
	}
}

func TestLineOfReplyWithNumbersPanics(t *testing.T) {
	for _, r := range []Reply{0, Token, Named} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", r.Outcome())
				}
			}()
			r.Append(nil)
		}()
	}
}

func TestReplyAllocs(t *testing.T) {
	buf := make([]byte, 0, 256)
	lines := [][]byte{[]byte("l locked\r\n"), []byte("f 17\r\n"), []byte("n named 60000 00000000000000af\r\n")}
	if allocs := testing.AllocsPerRun(20, func() {
		buf = Locked.Append(buf[:0])
		buf = AppendToken(buf, 1<<60)
		buf = AppendNamed(buf, time.Minute, 1<<60)
		for _, line := range lines {
			if _, err := ParseReply(line); err != nil {
				t.Fatal(err)
			}
		}
	}); allocs != 0 {
		t.Errorf("%v allocations a run", allocs)
	}
}
