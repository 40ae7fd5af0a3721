package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
	"dreadlock/server/takeover"
)

// ErrOption is wrapped by errors about options: an invalid address, a token that is missing or too short.
var ErrOption = errors.New("bad option")

// Source is the server as seen from here. All methods are safe from any goroutine, and return when their context ends.
// Their errors wrap [api.ErrNotFound], [api.ErrQuery], [api.ErrConflict], [api.ErrTakeover] or [api.ErrUnavailable].
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
	Events(ctx context.Context, q *api.EventQuery) (*api.EventPage, error)
	// AwaitEvents waits until there may be an event after the one with that number, or until ctx ends, which is no error.
	AwaitEvents(ctx context.Context, since uint64) error
	// Release takes a key from its holder without closing its connection, and logs who asks for it. If not the holder that is meant has
	// the key, the error is an [api.ErrConflict].
	Release(ctx context.Context, q *api.ReleaseQuery) (*api.Release, error)
	// Kick closes a connection, and logs that it does, and who asks for it.
	Kick(ctx context.Context, id api.ConnectionID, by string) error
	// Drain begins a drain, or joins one that is under way, and returns what is held. A timeout is the time that it takes at
	// most: it may end a drain earlier, but not later. Without one the server chooses the time, or leaves it as it is.
	Drain(ctx context.Context, timeout *time.Duration) (*api.Drain, error)
	// AwaitDrain returns the state of a drain that has begun: when it is over, or when ctx ends.
	AwaitDrain(ctx context.Context) *api.Drain
	// TakeOver starts a process that takes over, and returns when it has, or why not: an [api.ErrTakeover] says that the server
	// serves on. It logs who asks for it.
	TakeOver(ctx context.Context, by string) (*api.Takeover, error)
}

// Certificates has the configuration of TLS: the certificates of the daemon, and whether clients need one. Changes of the
// certificates must show in the configuration that was returned before.
type Certificates interface{ Config() *tls.Config }

// Config has the options of the admin interface.
type Config struct {
	// Listen are the addresses, at most [MaxAddresses], and none for the default socket alone:
	//
	//	host:port, http://host:port         port 0 is a free one; unless the host is loopback, it needs a TokenFile
	//	https://host:port                   the same with TLS; it needs Certificates
	//	unix:///path?mode=0660&group=NAME   without a mode 0600
	Listen []string
	// Ready, unless it is nil, asks for the default socket: see package adminsock. It is opened when the port of the daemon
	// comes from here, once the daemon has taken its own addresses; 0 if it has no port. If the socket cannot be opened, the
	// log says why.
	Ready <-chan int
	// TokenFile is a file with the token that requests by TCP must show, empty for no token. It is read by Listen and
	// [Server.ReloadToken], and only if there is an address for TCP. Who may connect to a Unix socket needs no token.
	TokenFile string
	// Certificates are for TLS, nil for none.
	Certificates Certificates
	// PProf serves profiles of the process under /debug/pprof.
	PProf bool

	// Predecessor has passed its listeners to this process, which may serve at them when it has ended; nil if there is none.
	Predecessor *takeover.Predecessor

	// Source is the server.
	Source Source
	// Log gets the messages of the admin interface.
	Log zerolog.Logger
}

// optionError returns an error about options. Its text names the flag.
func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrOption, fmt.Errorf(format, args...))
}
