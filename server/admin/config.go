package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// ErrOption is wrapped by errors about options: an invalid address, a token that is missing or too short.
var ErrOption = errors.New("bad option")

// Source is the server as seen from here. All methods are safe from any goroutine, and return when their context ends.
// Their errors wrap [api.ErrNotFound], [api.ErrQuery] or [api.ErrUnavailable].
type Source interface {
	// Ready says whether the server serves new clients: it neither drains nor is about to stop.
	Ready() bool
	Status(ctx context.Context) (*api.Status, error)
	Keys(ctx context.Context, q api.KeyQuery) (*api.KeyPage, error)
	// Key returns a held key and the first waiters of its queue: at most queue of them, 0 for none. A queue below 0 or above
	// [api.MaxLimit] is an [api.ErrQuery].
	Key(ctx context.Context, key string, queue int) (*api.Key, error)
	Connections(ctx context.Context, q api.ConnectionQuery) (*api.ConnectionPage, error)
	Connection(ctx context.Context, id api.ConnectionID) (*api.Connection, error)
	Deadlocks(ctx context.Context) (*api.Deadlocks, error)
	// Kick closes a connection, and logs that it does.
	Kick(ctx context.Context, id api.ConnectionID) error
	// Drain begins a drain, or joins one that is under way, and returns what is held. A timeout is the time that it takes at
	// most: it may end a drain earlier, but not later. Without one the server chooses the time, or leaves it as it is.
	Drain(ctx context.Context, timeout *time.Duration) (*api.Drain, error)
	// AwaitDrain returns the state of a drain that has begun: when it is over, or when ctx ends.
	AwaitDrain(ctx context.Context) *api.Drain
}

// Config has the options of the admin interface.
type Config struct {
	// Listen is the address host:port; port 0 is a free one. Unless the host is loopback, it needs a TokenFile.
	Listen string
	// TokenFile is a file with the token that requests must show, empty for no token. It is read once, by Listen.
	TokenFile string
	// PProf serves profiles of the process under /debug/pprof.
	PProf bool

	// Source is the server.
	Source Source
	// Log gets the messages of the admin interface.
	Log zerolog.Logger
}

// optionError returns an error about options. Its text names the flag.
func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrOption, fmt.Errorf(format, args...))
}

// address returns the address to listen on. A host is looked up here and nowhere else, so that the address that was
// checked is the one that is used.
func (c *Config) address() (*net.TCPAddr, error) {
	_, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, optionError("--admin %s: want host:port", c.Listen)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return nil, optionError("--admin %s: the port must be a number from 0 to 65535", c.Listen)
	}
	address, err := net.ResolveTCPAddr("tcp", c.Listen)
	if err != nil {
		return nil, optionError("--admin %s: %w", c.Listen, err)
	}
	if c.TokenFile == "" && !address.IP.IsLoopback() { // without a host it is every address
		return nil, optionError("--admin %s: other machines can reach this address: it needs --admin-token-file (or use 127.0.0.1)", c.Listen)
	}
	return address, nil
}
