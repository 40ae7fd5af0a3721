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
	for _, tc := range []struct {
		add  func([]byte, string) []byte
		want string
	}{
		{AppendUnlock, "unlock a\r\n"},
		{AppendFence, "fence a\r\n"},
		{AppendName, "name a\r\n"},
		{AppendOwner, "owner a\r\n"},
	} {
		if got := string(tc.add([]byte("> "), "a")); got != "> "+tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

// appends has the function that writes a command, for each kind without a timeout.
var appends = map[Kind]func([]byte, string) []byte{Unlock: AppendUnlock, Fence: AppendFence, Name: AppendName, Owner: AppendOwner}

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
			kind := Kind(rapid.IntRange(1, NumKinds-1).Draw(t, "kind"))
			arg, valid := key, ValidKey
			switch kind {
			case Name:
				arg, valid = rapid.StringMatching(`[!-~]{1,128}`), ValidName
			case Owner:
				arg, valid = rapid.StringMatching(`[A-Za-z0-9]{1,64}`), ValidOwner
			}
			k := arg.Draw(t, "argument")
			if err := valid(k); err != nil {
				t.Fatalf("%v: %v", kind, err)
			}
			if add := appends[kind]; add != nil {
				stream = add(stream, k)
				want.commands = append(want.commands, parsed{kind, k, 0})
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

func TestValid(t *testing.T) {
	for _, tc := range []struct {
		what  string
		valid func(string) error
		arg   string
		want  error
		text  string
	}{
		{"key", ValidKey, "a", nil, ""},
		{"key", ValidKey, "lock", nil, ""},
		{"key", ValidKey, "0aZ9", nil, ""},
		{"key", ValidKey, strings.Repeat("k", MaxKey), nil, ""},
		{"key", ValidKey, "", ErrEmptyKey, "proto: empty key"},
		{"key", ValidKey, strings.Repeat("k", MaxKey+1), ErrKeyTooLong, "proto: key too long: 9980 bytes, at most 9979"},
		{"key", ValidKey, "a b", ErrKeyByte, `proto: key has a byte that is not a letter or digit: " " at byte 2`},
		{"key", ValidKey, "\r\n", ErrKeyByte, `proto: key has a byte that is not a letter or digit: "\r" at byte 1`},
		{"key", ValidKey, "schön", ErrKeyByte, `proto: key has a byte that is not a letter or digit: "\xc3" at byte 4`},
		{"name", ValidName, "ann@build7:/srv", nil, ""},
		{"name", ValidName, "!~" + strings.Repeat("n", MaxName-2), nil, ""},
		{"name", ValidName, "", ErrEmptyName, "proto: empty name"},
		{"name", ValidName, strings.Repeat("n", MaxName+1), ErrNameTooLong, "proto: name too long: 129 bytes, at most 128"},
		{"name", ValidName, "a b", ErrNameByte, `proto: name has a byte that is not printable ASCII: " " at byte 2`},
		{"name", ValidName, "a\x7f", ErrNameByte, `proto: name has a byte that is not printable ASCII: "\x7f" at byte 2`},
		{"owner", ValidOwner, strings.Repeat("o", MaxOwner), nil, ""},
		{"owner", ValidOwner, "", ErrEmptyOwner, "proto: empty owner"},
		{"owner", ValidOwner, strings.Repeat("o", MaxOwner+1), ErrOwnerTooLong, "proto: owner too long: 65 bytes, at most 64"},
		{"owner", ValidOwner, "a-b", ErrOwnerByte, `proto: owner has a byte that is not a letter or digit: "-" at byte 2`},
	} {
		err := tc.valid(tc.arg)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s %.20q: %v, want %v", tc.what, tc.arg, err, tc.want)
		}
		if err != nil && err.Error() != tc.text {
			t.Errorf("%s %.20q: %s\nwant %s", tc.what, tc.arg, err, tc.text)
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
	for kind, want := range map[Kind]string{
		Lock: "lock", Unlock: "unlock", Fence: "fence", Name: "name", Owner: "owner", 0: "Kind(0)", 6: "Kind(6)", 255: "Kind(255)",
	} {
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
