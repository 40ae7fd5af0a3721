package bench

import (
	"strings"
	"testing"
)

// The last bytes are kept, and what was written after a position can be separated from what came before.
func TestTail(t *testing.T) {
	var kept tail
	_, _ = kept.Write([]byte(strings.Repeat("old\n", maxTail)))
	place := kept.end()
	if text := kept.since(place); text != "" {
		t.Errorf("%q, want nothing yet", text)
	}
	_, _ = kept.Write([]byte("new\n"))
	if text := kept.since(place); text != "new\n" {
		t.Errorf("%q, want what is new", text)
	}
	_, _ = kept.Write([]byte(strings.Repeat("x", 2*maxTail)))
	if text := kept.since(place); len(text) != maxTail {
		t.Errorf("%d bytes, want the last %d", len(text), maxTail)
	}
}

func TestAllocatedIn(t *testing.T) {
	for _, c := range []struct {
		lines string
		want  int64
		ok    bool
	}{
		{"", 0, false},
		{`{"message":"client dropped","allocated_objects":1}` + "\n", 0, false},
		{"half a li\n" + `{"allocated_objects":12345,"message":"status"}` + "\n", 12345, true},
		{`{"allocated_objects":12345,"mess`, 0, false},
	} {
		if got, ok := allocatedIn(c.lines); got != c.want || ok != c.ok {
			t.Errorf("%q: %d, %v, want %d, %v", c.lines, got, ok, c.want, c.ok)
		}
	}
}
