package proto

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"
)

const ms = time.Millisecond

// parsed is a Command with its own copy of the argument.
type parsed struct {
	Kind    Kind
	Arg     string
	Timeout time.Duration
}

// transcript is everything that a caller sees of the parsing of a connection's bytes.
type transcript struct {
	commands []parsed
	consumed int  // bytes in all
	idle     bool // no byte of a further command has arrived
	err      SyntaxError
}

func (a transcript) equal(b transcript) bool {
	if len(a.commands) != len(b.commands) || a.consumed != b.consumed || a.idle != b.idle || a.err != b.err {
		return false
	}
	for i := range a.commands {
		if a.commands[i] != b.commands[i] {
			return false
		}
	}
	return true
}

// tester is the part of testing.T that rapid.T has too.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// idle reports whether the input so far ended between two commands.
func idle(p *Parser) bool { return p.state == begin }

// parse runs the fragments through a new parser. On the way it checks what Next, Retain and Err promise of every
// call, and overwrites each fragment as soon as the promises allow it.
func parse(t tester, fragments ...string) transcript {
	t.Helper()
	return parseBy(t, func(*Parser) {}, fragments...)
}

// parseBy is parse, and does something between two fragments.
func parseBy(t tester, between func(*Parser), fragments ...string) transcript {
	t.Helper()
	var p Parser
	var tr transcript
	var cmd Command
	for _, fragment := range fragments {
		data := []byte(fragment)
		for {
			n, status := p.Next(data[:len(data):len(data)], &cmd)
			if n < 0 || n > len(data) {
				t.Fatalf("Next(%q) consumed %d bytes of %d", data, n, len(data))
			}
			tr.consumed += n
			if got, want := p.Err() != nil, status == Invalid; got != want {
				t.Fatalf("status %d, but Err() = %v", status, p.Err())
			}
			switch status {
			case More:
				if n != len(data) {
					t.Fatalf("More after %d bytes of %d", n, len(data))
				}
			case Complete:
				if !idle(&p) {
					t.Errorf("not idle after a command")
				}
				arg := string(cmd.Arg)
				p.Retain(&cmd)
				overwrite(data[:n])
				p.Retain(&cmd)
				if got := string(cmd.Arg); got != arg {
					t.Fatalf("argument %q turned into %q after Retain", arg, got)
				}
				tr.commands = append(tr.commands, parsed{cmd.Kind, arg, cmd.Timeout})
			case Invalid:
				if idle(&p) {
					t.Errorf("idle after a syntax error")
				}
				tr.err = *p.Err()
				if tr.err.Byte != data[n] {
					t.Errorf("error %v, but the byte after the consumed ones is %q", &tr.err, data[n])
				}
				if n, status := p.Next([]byte("lock a 1\r\n"), &cmd); n != 0 || status != Invalid || *p.Err() != tr.err {
					t.Errorf("Next after Invalid = %d, %d, Err() = %v; before it was %v", n, status, p.Err(), &tr.err)
				}
				return tr
			}
			overwrite(data[:n])
			data = data[n:]
			if len(data) == 0 {
				break
			}
		}
		between(&p)
	}
	tr.idle = idle(&p)
	return tr
}

func overwrite(b []byte) {
	for i := range b {
		b[i] = '#'
	}
}

// split cuts s into fragments of the given sizes, over and over; 0 is an empty one.
func split(s string, sizes ...int) []string {
	var fragments []string
	for i := 0; len(s) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(s))
		fragments = append(fragments, s[:n])
		s = s[n:]
	}
	return fragments
}

func printableASCII() string {
	var all []byte
	for c := byte('!'); c <= '~'; c++ {
		all = append(all, c)
	}
	return string(all)
}

func TestCommands(t *testing.T) {
	for _, tc := range []struct {
		name, input string
		want        []parsed
	}{
		{"nothing", "", nil},
		{"lock", "lock key 1000\r\n", []parsed{{Lock, "key", 1000 * ms}}},
		{"unlock", "unlock key\r\n", []parsed{{Unlock, "key", 0}}},
		{"shortest lock", "lock a 1\r\n", []parsed{{Lock, "a", ms}}},
		{"shortest unlock", "unlock a\r\n", []parsed{{Unlock, "a", 0}}},
		{"upper case", "LOCK a 1\r\nUNLOCK a\r\n", []parsed{{Lock, "a", ms}, {Unlock, "a", 0}}},
		{"mixed case", "lOcK a 1\r\nUnLoCk a\r\n", []parsed{{Lock, "a", ms}, {Unlock, "a", 0}}},
		{"case of keys matters", "lock Key 1\r\nlock kEY 1\r\n", []parsed{{Lock, "Key", ms}, {Lock, "kEY", ms}}},
		{"many spaces", "lock    a   1\r\nunlock     a\r\n", []parsed{{Lock, "a", ms}, {Unlock, "a", 0}}},
		{"spaces at the end", "lock a 1   \r\nunlock a  \r\n", []parsed{{Lock, "a", ms}, {Unlock, "a", 0}}},
		{"keywords as keys", "lock lock 1\r\nunlock unlock\r\n", []parsed{{Lock, "lock", ms}, {Unlock, "unlock", 0}}},
		{"digits as key", "lock 123 456\r\n", []parsed{{Lock, "123", 456 * ms}}},
		{"fence", "fence key\r\nFENCE  key  \r\n", []parsed{{Fence, "key", 0}, {Fence, "key", 0}}},
		{"name", "name ann@build7\r\nNaMe   x \r\n", []parsed{{Name, "ann@build7", 0}, {Name, "x", 0}}},
		{"every printable byte", "name " + printableASCII() + "\r\n", []parsed{{Name, printableASCII(), 0}}},
		{"longest name", "name " + strings.Repeat("n", 128) + " \r\n", []parsed{{Name, strings.Repeat("n", 128), 0}}},
		{"owner", "owner Deploy42\r\noWNER x\r\n", []parsed{{Owner, "Deploy42", 0}, {Owner, "x", 0}}},
		{"longest owner", "owner " + strings.Repeat("o", 64) + "\r\n", []parsed{{Owner, strings.Repeat("o", 64), 0}}},
		{"lock and fence", "lock a 5000\r\nfence a\r\n", []parsed{{Lock, "a", 5000 * ms}, {Fence, "a", 0}}},
		{"new keywords as keys", "lock fence 1\r\nunlock name\r\nfence owner\r\n",
			[]parsed{{Lock, "fence", ms}, {Unlock, "name", 0}, {Fence, "owner", 0}}},
		{"every letter and digit", "unlock 0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n",
			[]parsed{{Unlock, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 0}}},
		{"no timeout of an earlier lock", "lock a 7\r\nunlock b\r\nlock c 0\r\n",
			[]parsed{{Lock, "a", 7 * ms}, {Unlock, "b", 0}, {Lock, "c", 0}}},
		{"timeout zero", "lock a 0\r\n", []parsed{{Lock, "a", 0}}},
		{"leading zeros", "lock a 000000000000000000000000000000000012\r\n", []parsed{{Lock, "a", 12 * ms}}},
		{"every digit", "lock a 123456789\r\nlock a 9876543210\r\n",
			[]parsed{{Lock, "a", 123456789 * ms}, {Lock, "a", 9876543210 * ms}}},
		{"beyond 31 bits", "lock a 2147483648\r\n", []parsed{{Lock, "a", 2147483648 * ms}}},
		{"longest timeout", "lock a 9223372036854\r\n", []parsed{{Lock, "a", MaxTimeout}}},
		{"one below it", "lock a 9223372036853\r\n", []parsed{{Lock, "a", MaxTimeout - ms}}},
		{"one beyond it", "lock a 9223372036855\r\n", []parsed{{Lock, "a", MaxTimeout}}},
		{"beyond 64 bits", "lock a 18446744073709551617\r\n", []parsed{{Lock, "a", MaxTimeout}}},
		{"zeros at the end of a huge one", "lock a 1" + strings.Repeat("0", 500) + "\r\n", []parsed{{Lock, "a", MaxTimeout}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := transcript{commands: tc.want, consumed: len(tc.input), idle: true}
			for _, fragments := range [][]string{{tc.input}, split(tc.input, 1), split(tc.input, 0, 1), split(tc.input, 3)} {
				if got := parse(t, fragments...); !got.equal(want) {
					t.Errorf("%q:\n got %+v\nwant %+v", fragments, got, want)
				}
			}
		})
	}
}

func TestUnfinished(t *testing.T) {
	for _, command := range []string{"lock key 1000 \r\n", "unlock key \r\n", "fence key \r\n", "name n@me \r\n", "owner id \r\n"} {
		for n := range len(command) {
			want := transcript{consumed: n, idle: n == 0}
			for _, fragments := range [][]string{{command[:n]}, split(command[:n], 1)} {
				if got := parse(t, fragments...); !got.equal(want) {
					t.Errorf("%q:\n got %+v\nwant %+v", fragments, got, want)
				}
			}
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	long := strings.Repeat("k", MaxCommand)
	for _, tc := range []struct {
		name, input string
		column      int
		reason      Reason
	}{
		{"empty line", "\r\n", 1, WantKeyword},
		{"bare LF", "\n", 1, WantKeyword},
		{"leading space", " lock a 1\r\n", 1, WantKeyword},
		{"leading NUL", "\x00", 1, WantKeyword},
		{"high byte", "\xecock a 1\r\n", 1, WantKeyword},
		{"another protocol", "GET / HTTP/1.1\r\n\r\n", 1, WantKeyword},
		{"letter in keyword", "lick a 1\r\n", 2, WantKeyword},
		{"space in keyword", "loc k a 1\r\n", 4, WantKeyword},
		{"keyword cut off", "loc\r\n", 4, WantKeyword},
		{"unlock cut off", "unloc a\r\n", 6, WantKeyword},
		{"unlock turns into lock", "ulock a\r\n", 2, WantKeyword},
		{"control bytes for letters", "\x0cock a 1\r\n", 1, WantKeyword},
		{"high bytes for letters", "lo\xe3k a 1\r\n", 3, WantKeyword},
		{"keyword too long", "lockx a 1\r\n", 5, WantSpace},
		{"lock alone", "lock\r\n", 5, WantSpace},
		{"lock NUL", "lock\x00a 1\r\n", 5, WantSpace},
		{"lock tab", "lock\ta 1\r\n", 5, WantSpace},
		{"unlock alone", "unlock\r\n", 7, WantSpace},
		{"unlock NUL", "unlock\x00a\r\n", 7, WantSpace},
		{"lock without key", "lock \r\n", 6, WantKey},
		{"lock tab key", "lock \ta 1\r\n", 6, WantKey},
		{"unlock without key", "unlock   \r\n", 10, WantKey},
		{"no letter", "unlock _\r\n", 8, WantKey},
		{"dash in key", "lock a-b 1\r\n", 7, WantKeyOrSpace},
		{"UTF-8 in key", "lock sch\xc3\xb6n 1\r\n", 9, WantKeyOrSpace},
		{"lock without timeout", "lock abc\r\n", 9, WantKeyOrSpace},
		{"slash in key", "lock a/ 1\r\n", 7, WantKeyOrSpace},
		{"colon in key", "lock a: 1\r\n", 7, WantKeyOrSpace},
		{"at in key", "lock a@ 1\r\n", 7, WantKeyOrSpace},
		{"bracket in key", "lock a[ 1\r\n", 7, WantKeyOrSpace},
		{"backquote in key", "lock a` 1\r\n", 7, WantKeyOrSpace},
		{"brace in key", "lock a{ 1\r\n", 7, WantKeyOrSpace},
		{"dot in unlocked key", "unlock a.b\r\n", 9, WantKeyOrEnd},
		{"unlock with bare LF", "unlock a\n", 9, WantKeyOrEnd},
		{"unlock with timeout", "unlock a 1\r\n", 10, WantEnd},
		{"fence cut off", "fenc a\r\n", 5, WantKeyword},
		{"fence alone", "fence\r\n", 6, WantSpace},
		{"fence without key", "fence \r\n", 7, WantKey},
		{"dash in fenced key", "fence a-b\r\n", 8, WantKeyOrEnd},
		{"fence with timeout", "fence a 1\r\n", 9, WantEnd},
		{"name turns into fence", "nence a\r\n", 2, WantKeyword},
		{"name alone", "name\r\n", 5, WantSpace},
		{"name without text", "name \r\n", 6, WantText},
		{"UTF-8 for name", "name \xc3\xb6\r\n", 6, WantText},
		{"tab in name", "name a\tb\r\n", 7, WantTextOrEnd},
		{"delete in name", "name a\x7f\r\n", 7, WantTextOrEnd},
		{"name with bare LF", "name a\n", 7, WantTextOrEnd},
		{"two names", "name a b\r\n", 8, WantEnd},
		{"name too long", "name " + strings.Repeat("n", 129) + "\r\n", 134, WantEnd},
		{"name far too long", "name  " + long + "\r\n", 135, WantEnd},
		{"wrong at the end of the longest name", "name " + strings.Repeat("n", 128) + "\t", 134, WantEnd},
		{"owner without id", "owner   \r\n", 9, WantID},
		{"mark in owner", "owner a@b\r\n", 8, WantIDOrEnd},
		{"owner too long", "owner " + strings.Repeat("o", 65) + "\r\n", 71, WantEnd},
		{"two owners", "owner a b\r\n", 9, WantEnd},
		{"spaces for timeout", "lock a  \r\n", 9, WantTimeout},
		{"minus", "lock a -1\r\n", 8, WantTimeout},
		{"plus", "lock a +1\r\n", 8, WantTimeout},
		{"letter for timeout", "lock a x\r\n", 8, WantTimeout},
		{"slash for timeout", "lock a /\r\n", 8, WantTimeout},
		{"colon for timeout", "lock a :\r\n", 8, WantTimeout},
		{"fraction", "lock a 1.5\r\n", 9, WantDigitOrEnd},
		{"unit", "lock a 10ms\r\n", 10, WantDigitOrEnd},
		{"lock with bare LF", "lock a 1\n", 9, WantDigitOrEnd},
		{"two timeouts", "lock a 1 2\r\n", 10, WantEnd},
		{"tab at the end", "lock a 1 \t\r\n", 10, WantEnd},
		{"CR CR", "lock a 1\r\r\n", 10, WantLF},
		{"CR space", "unlock a\r \n", 10, WantLF},
		{"key without end", "lock " + long, MaxCommand + 1, TooLong},
		{"timeout without end", "lock a " + strings.Repeat("0", MaxCommand), MaxCommand + 1, TooLong},
		{"spaces without end", "unlock" + strings.Repeat(" ", MaxCommand), MaxCommand + 1, TooLong},
		{"spaces without end after the key", "lock a" + strings.Repeat(" ", MaxCommand), MaxCommand + 1, TooLong},
		{"spaces without end at the end", "unlock a" + strings.Repeat(" ", MaxCommand), MaxCommand + 1, TooLong},
		{"LF too late", "unlock " + long[:MaxCommand-8] + "\r\n", MaxCommand + 1, TooLong},
		{"too long and wrong too", "unlock " + long[:MaxCommand-7] + "\x00", MaxCommand + 1, TooLong},
		{"wrong at the last byte", "unlock " + long[:MaxCommand-8] + "\x00", MaxCommand, WantKeyOrEnd},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const before = "unlock b\r\n"
			want := transcript{
				commands: []parsed{{Unlock, "b", 0}},
				consumed: len(before) + tc.column - 1,
				err:      SyntaxError{tc.reason, tc.column, tc.input[tc.column-1]},
			}
			input := before + tc.input
			for _, fragments := range [][]string{{input}, split(input, 1), split(input, len(input)-1), {before, tc.input}} {
				if got := parse(t, fragments...); !got.equal(want) {
					t.Errorf("%.99q:\n got %+v\nwant %+v", fragments, got, want)
				}
			}
		})
	}
}

// TestLongest has commands of exactly MaxCommand bytes; one byte more is in TestSyntaxErrors.
func TestLongest(t *testing.T) {
	fill := func(prefix, filler, suffix string) string {
		return prefix + strings.Repeat(filler, MaxCommand-len(prefix)-len(suffix)) + suffix
	}
	for _, tc := range []struct {
		name, input string
		want        parsed
	}{
		{"key of a lock", fill("lock ", "k", " 1\r\n"), parsed{Lock, strings.Repeat("k", 9991), ms}},
		{"key of an unlock", fill("unlock ", "k", "\r\n"), parsed{Unlock, strings.Repeat("k", 9991), 0}},
		{"zeros", fill("lock a ", "0", "1\r\n"), parsed{Lock, "a", ms}},
		{"nines", fill("lock a ", "9", "\r\n"), parsed{Lock, "a", MaxTimeout}},
		{"spaces", fill("unlock a", " ", "\r\n"), parsed{Unlock, "a", 0}},
		{"key of a fence", fill("fence ", "k", "\r\n"), parsed{Fence, strings.Repeat("k", 9992), 0}},
		{"spaces before a name", fill("name ", " ", "a\r\n"), parsed{Name, "a", 0}},
		{"spaces after an owner", fill("owner a", " ", "\r\n"), parsed{Owner, "a", 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Twice, as the limit counts from the start of each command.
			want := transcript{commands: []parsed{tc.want, tc.want}, consumed: 2 * MaxCommand, idle: true}
			input := tc.input + tc.input
			for _, sizes := range [][]int{{len(input)}, {1}, {MaxCommand - 1, 1}, {MaxCommand - 2, 0, 3}, {4096}} {
				if got := parse(t, split(input, sizes...)...); !got.equal(want) {
					t.Errorf("fragments of %v bytes: %d commands, consumed %d, %+v", sizes, len(got.commands), got.consumed, got.err)
				}
			}
			// The whole command is unfinished until its last byte, and only a byte too many is an error.
			if got := parse(t, tc.input[:MaxCommand-1], ""); got.consumed != MaxCommand-1 || got.err != (SyntaxError{}) {
				t.Errorf("without the last byte: consumed %d, %+v", got.consumed, got.err)
			}
		})
	}
}

func TestUnfinishedAtTheLimit(t *testing.T) {
	input := "lock " + strings.Repeat("k", MaxCommand-5)
	if got := parse(t, input, "", ""); !got.equal(transcript{consumed: MaxCommand}) {
		t.Errorf("%d bytes: consumed %d, %+v", MaxCommand, got.consumed, got.err)
	}
	want := transcript{consumed: MaxCommand, err: SyntaxError{TooLong, MaxCommand + 1, 'k'}}
	if got := parse(t, input, "", "k"); !got.equal(want) {
		t.Errorf("one more: consumed %d, %+v", got.consumed, got.err)
	}
}

// TestNextStopsAfterTheCommand makes sure that Next does not judge what follows a command.
func TestNextStopsAfterTheCommand(t *testing.T) {
	var p Parser
	var cmd Command
	n, status := p.Next([]byte("lock a 1\r\n\x00"), &cmd)
	if n != 10 || status != Complete || !idle(&p) || p.Err() != nil {
		t.Errorf("Next = %d, %d, idle: %t, Err() = %v", n, status, idle(&p), p.Err())
	}
}

// TestArgLeftInInput: an argument that lies whole in the input is not copied before Retain.
func TestArgLeftInInput(t *testing.T) {
	var p Parser
	var cmd Command
	p.Next([]byte("loc"), &cmd)
	data := []byte("k key 1\r\n")
	p.Next(data, &cmd)
	if &cmd.Arg[0] != &data[2] {
		t.Errorf("the key was copied")
	}
	if cap(cmd.Arg) != len(cmd.Arg) {
		t.Errorf("an append to the key would overwrite the input")
	}
	p.Retain(&cmd)
	if &cmd.Arg[0] == &data[2] {
		t.Errorf("the key was not copied by Retain")
	}
}

func TestRetainInTheMiddleOfACommandPanics(t *testing.T) {
	var p Parser
	var cmd Command
	p.Next([]byte("lock key"), &cmd)
	defer func() {
		if recover() == nil {
			t.Errorf("no panic")
		}
	}()
	p.Retain(&cmd)
}

func TestAllocs(t *testing.T) {
	for _, tc := range []struct {
		name      string
		fragments []string
	}{
		{"whole", []string{"lock key123 1000\r\nunlock key123\r\n"}},
		{"long", []string{"unlock " + strings.Repeat("k", 9991) + "\r\n"}},
		{"split keyword", []string{"lo", "ck key123 1000\r\n"}},
		{"split key", []string{"lock ke", "y123 1000\r\n"}},
		{"split timeout", []string{"lock key123 10", "00\r\n"}},
		{"new words", []string{"name x@y\r\nowner id\r\nfence key123\r\n"}},
		{"new words in bytes", split("name x@y\r\nowner id\r\nfence key123\r\n", 1)},
		{"bytes", split("lock key123 1000\r\nunlock key123\r\n", 1)},
		{"long in bytes", split("unlock "+strings.Repeat("k", 9991)+"\r\n", 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p Parser
			var cmd Command
			var fragments [][]byte
			for _, s := range tc.fragments {
				fragments = append(fragments, []byte(s))
			}
			allocs := testing.AllocsPerRun(20, func() {
				for _, data := range fragments {
					for len(data) > 0 {
						n, status := p.Next(data, &cmd)
						if status == Invalid {
							t.Fatal(p.Err())
						}
						if status == Complete {
							p.Retain(&cmd)
						}
						data = data[n:]
					}
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations a run", allocs)
			}
		})
	}
}

func TestMemory(t *testing.T) {
	var p Parser
	if size := unsafe.Sizeof(p); size > 48 {
		t.Errorf("a parser takes %d bytes", size)
	}
	var cmd Command
	for _, fragment := range split("lock "+strings.Repeat("k", MaxCommand), 1) {
		p.Next([]byte(fragment), &cmd)
	}
	if cap(p.kept) > MaxCommand {
		t.Errorf("a parser keeps %d bytes", cap(p.kept))
	}
}

func TestSyntaxErrorText(t *testing.T) {
	var p Parser
	var cmd Command
	p.Next([]byte("lock \xff"), &cmd)
	err := error(p.Err())
	if got, want := err.Error(), `proto: column 6: want a space or a key of letters and digits, got "\xff"`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if _, ok := errors.AsType[*SyntaxError](err); !ok {
		t.Errorf("not a *SyntaxError")
	}
	for r := WantKeyword; r <= TooLong; r++ {
		if strings.HasPrefix(r.String(), "Reason(") {
			t.Errorf("reason %d has no text", r)
		}
	}
	if got := (TooLong + 1).String(); got != "Reason(15)" {
		t.Errorf("unknown reason: %s", got)
	}
}
