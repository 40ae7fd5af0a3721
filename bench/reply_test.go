package bench

import (
	"slices"
	"testing"
	"time"
)

// Every accepted reply of every dialect is recognized however it is split, and everything else is wrong.
func TestRepliesOfAllDialects(t *testing.T) {
	for name, d := range dialects {
		for _, e := range []exchange{d.lock("key1", time.Second), d.unlock("key1"), join(d.lock("a", 0), d.unlock("a"))} {
			for outcome, reply := range e.accept {
				for cut := range reply {
					var x expectation
					x.expect(&e)
					if cut > 0 {
						if n, _, p := x.feed(reply[:cut]); p != moreToCome || n != cut {
							t.Fatalf("%s: %q split at %d: progress %d, %d bytes", name, reply, cut, p, n)
						}
					}
					if got := x.came(); got != string(reply[:cut]) {
						t.Fatalf("%s: %q split at %d: came %q", name, reply, cut, got)
					}
					rest := slices.Concat(reply[cut:], []byte("more"))
					if n, got, p := x.feed(rest); p != answered || got != outcome || n != len(reply)-cut {
						t.Fatalf("%s: %q split at %d: progress %d, outcome %d, %d bytes", name, reply, cut, p, got, n)
					}
					checkWrongByte(t, &e, reply, cut)
				}
			}
		}
	}
}

// checkWrongByte changes one byte of a reply so that it matches no other reply either.
func checkWrongByte(t *testing.T, e *exchange, reply []byte, at int) {
	t.Helper()
	bad := slices.Clone(reply)
	bad[at] = '~'
	var x expectation
	x.expect(e)
	if _, _, p := x.feed(bad); p != wrong {
		t.Errorf("%q for %q: progress %d", bad, e.request, p)
	}
	v := x.violation(7, "wrong reply", bad)
	if v.Came != string(bad) || v.Sent != string(e.request) || len(v.Want) != len(e.accept) {
		t.Errorf("violation %+v", v)
	}
}

func TestRequests(t *testing.T) {
	tests := []struct{ dialect, lock, unlock string }{
		{"dreadlock", "lock k 1500\r\n", "unlock k\r\n"},
		{"echo", "lock k 1500\r\n", "unlock k\r\n"},
		{
			"redis",
			"*6\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$4\r\n1500\r\n",
			"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
		},
		{"memcached", "add k 0 2 1\r\n1\r\n", "delete k\r\n"},
	}
	for _, test := range tests {
		d := dialects[test.dialect]
		if got := string(d.lock("k", 1500*time.Millisecond).request); got != test.lock {
			t.Errorf("%s: lock is %q", test.dialect, got)
		}
		if got := string(d.unlock("k").request); got != test.unlock {
			t.Errorf("%s: unlock is %q", test.dialect, got)
		}
	}
}
