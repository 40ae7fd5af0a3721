package bench

import (
	"strings"
	"sync"
)

// maxTail is how much is kept of what a server says, in bytes.
const maxTail = 2048

// tail keeps the end of what is written to it.
type tail struct {
	mu      sync.Mutex
	kept    []byte
	written int64 // bytes, all of them
}

// Write keeps the end of what was written. It is safe from any goroutine.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	t.written += int64(len(p))
	if over := len(t.kept) - maxTail; over > 0 {
		t.kept = t.kept[over:]
	}
	return len(p), nil
}

// said returns what was kept, for the end of an error.
func (t *tail) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := strings.TrimSpace(string(t.kept)); text != "" {
		return ": it said: " + text
	}
	return ""
}

// end returns the place behind what was written.
func (t *tail) end() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.written
}

// since returns what was written behind a place, as far as it is kept.
func (t *tail) since(place int64) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(t.written-place, int64(len(t.kept)))
	return string(t.kept[int64(len(t.kept))-n:])
}
