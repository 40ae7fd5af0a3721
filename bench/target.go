package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// ErrTarget is wrapped by errors about a target that is invalid or cannot run a workload.
var ErrTarget = errors.New("bench: bad target")

// Target is a server to measure.
type Target struct {
	Name    string   // in tables; unique in a comparison
	Kind    string   // of a peer, or the dialect of a server that was given by its URL
	Dialect *Dialect // its protocol
	Address string   // host:port
	Loops   int      // event loops or worker threads; 0 if unknown
	PID     int      // its process on this machine; 0 if unknown, then processor time and memory are not measured

	// allocated returns the number of heap objects that the server has allocated so far; nil if it does not report it.
	allocated func(context.Context) (int64, error)
	// waiters returns the number of connections that wait for a held key; nil if the server does not report it.
	waiters func(ctx context.Context, key string) (int, error)
}

// ParseTarget parses a URL: dreadlock://HOST:PORT, redis://, memcached:// or echo://. The query may have the process of
// the server, a name for tables, its number of loops and its admin interface: ?pid=123&name=old&loops=1&admin=HOST:PORT.
func ParseTarget(text string) (*Target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	dialect := dialects[u.Scheme]
	if dialect == nil {
		return nil, fmt.Errorf("%w: %s: want dreadlock://, redis://, memcached:// or echo://", ErrTarget, text)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil || u.Port() == "" {
		return nil, fmt.Errorf("%w: %s: want a host and a port after %s://", ErrTarget, text, u.Scheme)
	}
	t := &Target{Name: u.Scheme + "://" + u.Host, Kind: u.Scheme, Dialect: dialect, Address: u.Host}
	for key, values := range u.Query() {
		switch value := values[len(values)-1]; key {
		case "admin":
			t.waiters = waitersOf(value)
		case "name":
			t.Name = value
		case "pid":
			t.PID, err = positive(value)
		case "loops":
			t.Loops, err = positive(value)
		default:
			err = errors.New("unknown parameter")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %s: %w", ErrTarget, text, key, err)
		}
	}
	return t, nil
}

// Can returns an error that wraps ErrTarget if the server cannot run the workload.
func (t *Target) Can(w *Workload) error {
	if w.Kind.Queues() && !t.Dialect.Queues {
		return fmt.Errorf("%w: %s cannot run %s: %s does not queue requests for a key", ErrTarget, t.Name, w.Kind, t.Dialect.Name)
	}
	if w.Kind == Idle && t.PID == 0 {
		return fmt.Errorf("%w: %s: idle measures the memory of the process: add ?pid=N", ErrTarget, t.Name)
	}
	return nil
}

func positive(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && n < 1 {
		err = errors.New("must be at least 1")
	}
	return n, err
}
