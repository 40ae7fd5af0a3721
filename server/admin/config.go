package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// ErrOption is wrapped by errors about options: an address that makes no sense, a token that is missing or too weak.
var ErrOption = errors.New("bad option")

// Source is a server as seen from here. All methods are safe from any goroutine, and return when their context ends.
// Their errors wrap [api.ErrNotFound], [api.ErrQuery] or [api.ErrUnavailable].
type Source interface {
	// Ready says whether the server serves clients and is not about to stop.
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
}

// Config says where to show the inside, and to whom.
type Config struct {
	// Listen is the address host:port; port 0 is a free one. Unless the host is loopback, it needs a TokenFile.
	Listen string
	// TokenFile names a file with the token that callers must show. Empty for none. It is read once.
	TokenFile string
	// PProf has profiles of the process served under /debug/pprof.
	PProf bool

	// Source is the server.
	Source Source
	// Log gets what there is to say about admin itself.
	Log zerolog.Logger
}

// optionError is an error about options. It names the flag.
func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrOption, fmt.Errorf(format, args...))
}

// address returns where to listen. A host is looked up here and nowhere else: what is checked is what is listened on.
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
	if c.TokenFile == "" && !address.IP.IsLoopback() { // no host is every address
		return nil, optionError("--admin %s: others can reach this address: it needs --admin-token-file (or use 127.0.0.1)", c.Listen)
	}
	return address, nil
}
