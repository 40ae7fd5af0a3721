package bench

import (
	"strings"
	"sync"
)

// maxTail is how much of a server's output is kept, in bytes.
const maxTail = 2048

// tail keeps the last bytes that are written to it.
type tail struct {
	mu      sync.Mutex
	kept    []byte
	written int64 // bytes in total
}

// Write keeps the last maxTail bytes. It is safe from any goroutine.
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

// said returns what is kept, to be appended to an error.
func (t *tail) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := strings.TrimSpace(string(t.kept)); text != "" {
		return "; its output: " + text
	}
	return ""
}

// end returns the position after the last byte.
func (t *tail) end() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.written
}

// since returns what was written after a position, as far as it is kept.
func (t *tail) since(position int64) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(t.written-position, int64(len(t.kept)))
	return string(t.kept[int64(len(t.kept))-n:])
}
