package proto

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAppend(t *testing.T) {
	for _, tc := range []struct {
		timeout time.Duration
		want    string
	}{
		{0, "lock a 0\r\n"},
		{1, "lock a 1\r\n"},
		{ms, "lock a 1\r\n"},
		{ms + 1, "lock a 2\r\n"},
		{2*ms - 1, "lock a 2\r\n"},
		{time.Minute, "lock a 60000\r\n"},
		{-1, "lock a 0\r\n"},
		{math.MinInt64, "lock a 0\r\n"},
		{MaxTimeout, "lock a 9223372036854\r\n"},
		{math.MaxInt64, "lock a 9223372036855\r\n"},
	} {
		if got := string(AppendLock([]byte("> "), "a", tc.timeout)); got != "> "+tc.want {
			t.Errorf("timeout %d: got %q, want %q", tc.timeout, got, tc.want)
		}
	}
	if got := string(AppendUnlock([]byte("> "), "a")); got != "> unlock a\r\n" {
		t.Errorf("unlock: got %q", got)
	}
}

func TestFormatThenParse(t *testing.T) {
	key := rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9]{1,100}`),
		rapid.Map(rapid.IntRange(1, MaxKey), func(n int) string { return strings.Repeat("k", n) }),
		rapid.Just(strings.Repeat("k", MaxKey)),
	)
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		want := transcript{idle: true}
		for range rapid.IntRange(1, 5).Draw(t, "commands") {
			k := key.Draw(t, "key")
			if err := ValidKey(k); err != nil {
				t.Fatalf("ValidKey(%q) = %v", k, err)
			}
			if rapid.Bool().Draw(t, "unlock") {
				stream = AppendUnlock(stream, k)
				want.commands = append(want.commands, parsed{Unlock, k, 0})
				continue
			}
			d := time.Duration(rapid.OneOf(rapid.Int64(), rapid.Just(int64(math.MaxInt64))).Draw(t, "timeout"))
			stream = AppendLock(stream, k, d)
			switch {
			case d < 0:
				d = 0
			case d > MaxTimeout:
				d = MaxTimeout
			case d%ms != 0:
				d += ms - d%ms
			}
			want.commands = append(want.commands, parsed{Lock, k, d})
		}
		want.consumed = len(stream)
		if got := parse(t, string(stream)); !got.equal(want) {
			t.Fatalf("%.200q:\n got %.200v\nwant %.200v", stream, got, want)
		}
	})
}

func TestValidKey(t *testing.T) {
	for _, tc := range []struct {
		key  string
		want error
		text string
	}{
		{"a", nil, ""},
		{"lock", nil, ""},
		{"0aZ9", nil, ""},
		{strings.Repeat("k", MaxKey), nil, ""},
		{"", ErrEmptyKey, "proto: empty key"},
		{strings.Repeat("k", MaxKey+1), ErrKeyTooLong, "proto: key too long: 9980 bytes, at most 9979"},
		{"a b", ErrKeyByte, `proto: key has a byte that is not a letter or digit: " " at byte 2`},
		{"\r\n", ErrKeyByte, `proto: key has a byte that is not a letter or digit: "\r" at byte 1`},
		{"schön", ErrKeyByte, `proto: key has a byte that is not a letter or digit: "\xc3" at byte 4`},
	} {
		err := ValidKey(tc.key)
		if !errors.Is(err, tc.want) {
			t.Errorf("ValidKey(%.20q) = %v, want %v", tc.key, err, tc.want)
		}
		if err != nil && err.Error() != tc.text {
			t.Errorf("ValidKey(%.20q) = %s\nwant %s", tc.key, err, tc.text)
		}
	}
}

// TestMaxKeyIsExact: the longest key with the longest timeout fills a command to its last byte.
func TestMaxKeyIsExact(t *testing.T) {
	if got := len(AppendLock(nil, strings.Repeat("k", MaxKey), math.MaxInt64)); got != MaxCommand {
		t.Errorf("%d bytes", got)
	}
}

func TestKindText(t *testing.T) {
	for kind, want := range map[Kind]string{Lock: "lock", Unlock: "unlock", 0: "Kind(0)", 3: "Kind(3)"} {
		if got := kind.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAppendAllocs(t *testing.T) {
	buf := make([]byte, 0, 64)
	if allocs := testing.AllocsPerRun(20, func() {
		buf = AppendLock(buf[:0], "key123", time.Second)
		buf = AppendUnlock(buf, "key123")
	}); allocs != 0 {
		t.Errorf("%v allocations a run", allocs)
	}
}
