package proto

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzParser compares the parser with the grammar. cuts are the sizes of the fragments, over and over; without a cut
// other than 0 the input comes whole. Every go test runs the files in testdata/fuzz/FuzzParser. When fuzzing, add
// -fuzzminimizetime 200x: without it, shrinking each seed at the length limit takes a minute.
func FuzzParser(f *testing.F) {
	f.Fuzz(func(t *testing.T, input, cuts []byte) {
		sizes := []int{len(input)}
		if len(bytes.Trim(cuts, "\x00")) > 0 {
			sizes = nil
			for _, n := range cuts {
				sizes = append(sizes, int(n))
			}
		}
		want := grammar(input)
		if got := parse(t, split(string(input), sizes...)...); !got.equal(want) {
			t.Errorf("%q in fragments of %v:\n got %+v\nwant %+v", input, sizes, got, want)
		}
		if got := parseHandedOver(t, split(string(input), sizes...)...); !got.equal(want) {
			t.Errorf("%q in fragments of %v, by one parser after another:\n got %+v\nwant %+v", input, sizes, got, want)
		}
	})
}

// edges are bytes at the edges of the classes of bytes, and one that is inside none of them.
const edges = "\x00\t\n\r\x1f !/09:@AKLZ[`akloz{~\x7f\u0080\u00ff"

// TestEverySubstitution tries every value at every byte of one command of each kind, with single spaces and with more.
// Short, it tries the edges alone.
func TestEverySubstitution(t *testing.T) {
	for _, command := range []string{
		"lock  k9  10  \r\n", "unlock  k9  \r\n", "fence  k9  \r\n", "name  a@9  \r\n", "owner  i9  \r\n",
		"lock k9 10\r\n", "unlock k9\r\n", "fence k9\r\n", "name a@9\r\n", "owner i9\r\n",
	} {
		for at := range len(command) {
			for c := range 256 {
				if testing.Short() && !strings.ContainsRune(edges, rune(c)) {
					continue
				}
				input := command[:at] + string([]byte{byte(c)}) + command[at+1:]
				want := grammar([]byte(input))
				if got := parseHandedOver(t, split(input, 1)...); !got.equal(want) {
					t.Errorf("%q, byte by byte by one parser after another:\n got %+v\nwant %+v", input, got, want)
				}
				for _, fragments := range [][]string{{input}, split(input, 1)} {
					if got := parse(t, fragments...); !got.equal(want) {
						t.Errorf("%q:\n got %+v\nwant %+v", fragments, got, want)
					}
				}
			}
		}
	}
}

// TestAnySplit draws pipelines, most of them valid, and ways to split them.
func TestAnySplit(t *testing.T) {
	spaces := rapid.StringMatching(` {1,3}`)
	optional := rapid.StringMatching(` {0,2}`)
	key := rapid.StringMatching(`[A-Za-z0-9]{1,80}`)
	text := rapid.StringMatching(`[!-~]{1,130}`)
	id := rapid.StringMatching(`[A-Za-z0-9]{1,66}`)
	command := rapid.Custom(func(t *rapid.T) string {
		keyword, arg := lockRE, key
		switch rapid.IntRange(1, NumKinds-1).Draw(t, "kind") {
		case int(Lock):
			return rapid.StringMatching(lockRE).Draw(t, "keyword") + spaces.Draw(t, "sp1") + key.Draw(t, "key") +
				spaces.Draw(t, "sp2") + rapid.StringMatching(`0{0,3}[0-9]{1,25}`).Draw(t, "timeout") + optional.Draw(t, "sp3") + "\r\n"
		case int(Unlock):
			keyword = unlockRE
		case int(Fence):
			keyword = fenceRE
		case int(Name):
			keyword, arg = nameRE, text
		case int(Owner):
			keyword, arg = ownerRE, id
		}
		return rapid.StringMatching(keyword).Draw(t, "keyword") + spaces.Draw(t, "sp1") + arg.Draw(t, "argument") +
			optional.Draw(t, "sp2") + "\r\n"
	})
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		for _, c := range rapid.SliceOfN(command, 0, 8).Draw(t, "commands") {
			stream = append(stream, c...)
		}
		if len(stream) > 0 && rapid.Bool().Draw(t, "spoil") {
			at := rapid.IntRange(0, len(stream)-1).Draw(t, "at")
			stream[at] = rapid.OneOf(rapid.SampledFrom([]byte("lLkKfn09 \r\n\t-~")), rapid.Byte()).Draw(t, "byte")
		}
		if rapid.Bool().Draw(t, "cut off") {
			stream = stream[:rapid.IntRange(0, len(stream)).Draw(t, "length")]
		}

		want := grammar(stream)
		if got := parse(t, string(stream)); !got.equal(want) {
			t.Fatalf("%q whole:\n got %+v\nwant %+v", stream, got, want)
		}
		sizes := rapid.SliceOfN(rapid.IntRange(0, 40), 1, 20).Draw(t, "sizes")
		sizes = append(sizes, 1+rapid.IntRange(0, 40).Draw(t, "last size"))
		if got := parse(t, split(string(stream), sizes...)...); !got.equal(want) {
			t.Fatalf("%q in fragments of %v:\n got %+v\nwant %+v", stream, sizes, got, want)
		}
		if got := parseHandedOver(t, split(string(stream), sizes...)...); !got.equal(want) {
			t.Fatalf("%q in fragments of %v, by one parser after another:\n got %+v\nwant %+v", stream, sizes, got, want)
		}
	})
}
