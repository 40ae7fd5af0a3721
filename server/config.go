package server

import (
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dreadlock/lockmgr"
	"dreadlock/reactor"
	"dreadlock/server/api"
	"dreadlock/server/certs"
	"dreadlock/server/fleet"
	"dreadlock/server/takeover"
)

// DefaultPort is the port of the protocol.
const DefaultPort = 6001

// ErrOption is wrapped by errors about options.
var ErrOption = errors.New("bad option")

// Config says how to serve. Start from [DefaultConfig]: zero is not a default, except where it says so.
type Config struct {
	// Listen are the ways in, at least one: "host:port", where no host is every address of both IP families and port 0 a free
	// one, "tls://host:port", "unix:///path" or "fd://name". What may follow a question mark is in the table of the daemon's
	// README.
	Listen []string
	// Certificates are for the ways in with TLS, nil if there is none.
	Certificates *certs.Store
	// Activated returns the listening sockets of that name that the parent process has passed, those of all names for "". Nil
	// if there can be none.
	Activated func(name string) ([]PassedSocket, error)
	// Loops is the number of event loops, 1 to 256; by default one for each processor this process may use.
	Loops int
	// MaxConnections is the number of clients served at a time; one more is refused. Zero, the default, is what the
	// limit on open files leaves.
	MaxConnections int
	// MaxPerAddress is the number of clients of one IP address that are served at a time; one more is refused. Clients on
	// this machine do not count, and behind a proxy the address is that of the client. Zero, the default, is no limit.
	MaxPerAddress int
	// IdleTimeout is how long a client may be connected without having sent a complete command; then it is dropped. Who has sent
	// one may be silent for ever: it may hold a key, wait for one, or come back to its connection tomorrow. Zero, the default, is for
	// ever; else at least a second. It is for daemons that strangers can reach; a minute is sensible.
	IdleTimeout time.Duration
	// MaxPipeline is the number of bytes that are kept of what a client sends while it waits; beyond it the client is
	// held back by TCP. One read, up to 16 KiB, may come on top, and up to 5 MiB to find out whether it has ended. 256 KiB by
	// default.
	MaxPipeline int
	// MaxOutput is the number of bytes of answers that are kept for a client that does not read; beyond it the client
	// is held back by TCP, and its commands wait. What was collected for one write, about 16 KiB, may come on top. 256
	// KiB by default.
	MaxOutput int
	// MaxKeys is the number of keys that one client may hold, 1 to [math.MaxInt32]. A lock beyond it is refused. 100,000 by default.
	MaxKeys int
	// MaxKeyBytes is the memory that the keys of one client may take, in bytes: 144 for a key of up to 28 bytes, as
	// [lockmgr.KeySize] says. A lock beyond it is refused. 16 MiB by default.
	MaxKeyBytes int
	// MaxMemory is the memory, in bytes, that all clients together may make the server take: keys, connections, input that is not
	// executed yet, and answers that are not read. At the limit locks and connections are refused and clients are held back; what
	// is held stays, and unlocks work. At least 4 MiB; zero, the default, is half of the memory that the process may use: of its
	// cgroup or of the machine, whichever is less. An eighth may come on top, to find clients that have ended.
	MaxMemory int
	// KeepAlive is the silence after which a client's host is probed; it is taken for lost after twice that, at most two
	// seconds later. Whole seconds, at least one; 30 s by default.
	KeepAlive time.Duration
	// Tick is the unit of timeouts, which end up to one tick late: 1 to 100 ms, 5 ms by default.
	Tick time.Duration

	// LockDelay is how long a key whose holder's connection has ended without an unlock is kept from the next: the time that the
	// holder has to notice and stop. After a start it is how long nothing is granted, but in a fleet. Zero, the default, is not at
	// all; at most an hour.
	LockDelay time.Duration
	// Fleet is where the server meets the other daemons with which it shares one lock space; nil, the default, if it is alone. A server
	// runs it, once.
	Fleet fleet.Store
	// Drain is the time of a drain for which no other is given, at most 24 h; zero, the default, means 30 s. See
	// [Server.Drain].
	Drain time.Duration

	// BreakDeadlocks has the youngest wait of a deadlock answered with an error. Without it a deadlock is only reported.
	BreakDeadlocks bool

	// Events is the number of events that are kept in memory, see [Server.Events]: 10,000 by default, at most a million. Each
	// takes about 200 bytes. Zero is none.
	Events int
	// LogEvents has the events logged, as far as there are not more than 500 in a second. It needs Events.
	LogEvents bool

	// Predecessor is the process from which this one takes over all that it serves, nil if it starts with nothing.
	Predecessor *takeover.Predecessor
	// Successor starts the process that takes over from this one, for [Server.TakeOver]. Nil if there can be none.
	Successor func() (*takeover.Successor, error)
	// AlsoPassed, if set, returns further listeners that go to a successor. They are closed after use.
	AlsoPassed func() ([]*takeover.Listener, error)
	// HandedOver, if set, is called when a successor serves in place of this server, which never serves again: the process has to end, at
	// once, and to close and remove nothing before that.
	HandedOver func(t *api.Takeover, successor *takeover.Successor)

	// Hangs, if set, is called when the predecessor does not end after this server has taken over, and is about to be killed.
	Hangs func()

	// Version is named in the log when the server starts.
	Version string
	// Log gets everything the server has to say. Its writer must not block, since the loops write to it.
	Log zerolog.Logger
	// Ready, if set, is called when the server serves, with the first address: host:port, or a URL if it is no TCP socket.
	Ready func(address string)
	// Draining, if set, is called when a drain is asked for, with the time at which the server ends at the latest. It may be
	// called again, by any goroutine.
	Draining func(until time.Time)
}

// PassedSocket is a listening socket that the parent process has passed.
type PassedSocket struct {
	net.Listener
	Name string
}

// DefaultConfig returns the defaults of all options. It logs nothing.
func DefaultConfig() Config {
	return Config{
		Listen:      []string{":" + strconv.Itoa(DefaultPort)},
		Loops:       min(runtime.GOMAXPROCS(0), reactor.MaxLoops),
		MaxPipeline: 256 << 10,
		MaxOutput:   256 << 10,
		MaxKeys:     100_000,
		MaxKeyBytes: 16 << 20,
		KeepAlive:   30 * time.Second,
		Tick:        5 * time.Millisecond,
		Events:      10_000,
		Log:         zerolog.Nop(),
	}
}

// silence returns how long a client whose host has vanished keeps its keys.
func (c *Config) silence() time.Duration { return 2 * c.KeepAlive }

// Procs returns the GOMAXPROCS with which a process serves best: see package reactor.
func (c *Config) Procs() int { return reactor.Procs(c.Loops) }

const (
	// maxTick keeps timeouts within the 100 ms that the protocol allows.
	maxTick = 100 * time.Millisecond
	// maxKeepAlive is what the kernel takes.
	maxKeepAlive = 32767 * time.Second
	// maxBuffer is more than anybody needs, and its double can be counted in 32 bits.
	maxBuffer = 1 << 30
	// maxLockDelay bounds what the keys of all who have ended take until they go on.
	maxLockDelay = time.Hour
)

// Validate reports the first option that cannot be used, by the name of its flag: an error that wraps [ErrOption].
func (c *Config) Validate() error {
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrOption, err)
	}
	return nil
}

func (c *Config) check() error {
	ways, err := parseWays(c.Listen)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(ways, func(w *way) bool { return w.tls }); i >= 0 && c.Certificates == nil {
		return fmt.Errorf("--listen %s: TLS needs --tls-cert and --tls-key", ways[i].text)
	}
	switch {
	case c.Loops < 1 || c.Loops > reactor.MaxLoops:
		return fmt.Errorf("--loops %d: want 1 to %d", c.Loops, reactor.MaxLoops)
	case c.MaxConnections < 0:
		return fmt.Errorf("--max-connections %d: want at least 1, or 0 for what the limit on open files leaves", c.MaxConnections)
	case c.MaxPerAddress < 0:
		return fmt.Errorf("--max-connections-per-address %d: want at least 1, or 0 for no limit", c.MaxPerAddress)
	case c.IdleTimeout != 0 && c.IdleTimeout < time.Second:
		return fmt.Errorf("--idle-timeout %s: want at least 1s, or 0 for none", c.IdleTimeout)
	case c.MaxPipeline < 1 || c.MaxPipeline > maxBuffer:
		return fmt.Errorf("--max-pipeline %d: want 1 byte to 1GiB", c.MaxPipeline)
	case c.MaxOutput < 1 || c.MaxOutput > maxBuffer:
		return fmt.Errorf("--max-output %d: want 1 byte to 1GiB", c.MaxOutput)
	case c.MaxKeys < 1 || c.MaxKeys > math.MaxInt32:
		return fmt.Errorf("--max-keys %d: want 1 to %d", c.MaxKeys, math.MaxInt32)
	case c.MaxKeyBytes < lockmgr.KeySize(1):
		return fmt.Errorf("--max-key-bytes %d: want at least %d bytes, which is what a key takes", c.MaxKeyBytes, lockmgr.KeySize(1))
	case c.MaxMemory != 0 && c.MaxMemory < minMaxMemory:
		return fmt.Errorf("--max-memory %d: want at least 4MiB, or 0 for half of the memory that the process may use", c.MaxMemory)
	case c.KeepAlive < time.Second || c.KeepAlive > maxKeepAlive || c.KeepAlive%time.Second != 0:
		return fmt.Errorf("--keepalive %s: want whole seconds, 1s to %s", c.KeepAlive, maxKeepAlive)
	case c.Tick < time.Millisecond || c.Tick > maxTick:
		return fmt.Errorf("--tick %s: want 1ms to %s", c.Tick, maxTick)
	case c.Events < 0 || c.Events > maxEvents:
		return fmt.Errorf("--events %d: want 0 to %d", c.Events, maxEvents)
	case c.LogEvents && c.Events == 0:
		return errors.New("--log-events: there are none with --events 0")
	case c.LockDelay < 0 || c.LockDelay > maxLockDelay:
		return fmt.Errorf("--lock-delay %s: want 0s to %s", c.LockDelay, maxLockDelay)
	case c.Drain < 0 || c.Drain > maxDrain:
		return fmt.Errorf("--drain %s: want 0s to %s", c.Drain, maxDrain)
	}
	limit, reserved := openFiles(), reservedDescriptors(c.Loops, len(ways))
	switch {
	case limit <= reserved:
		return fmt.Errorf("the limit on open files is %d, and with %d loops at least %d are needed: raise it with ulimit -n or LimitNOFILE=",
			limit, c.Loops, reserved+max(c.MaxConnections, 1))
	case c.MaxConnections > limit-reserved:
		return fmt.Errorf("--max-connections %d: the limit on open files is %d, which leaves room for %d connections, and %d are needed: "+
			"raise it with ulimit -n or LimitNOFILE=", c.MaxConnections, limit, limit-reserved, reserved+c.MaxConnections)
	}
	return nil
}

// Descriptors that are not for connections. While there are too few of them no connection can be accepted, and half-closed
// ones are lost, so the reserve is generous.
const (
	reservePerLoop = 7  // epoll, gnet's eventfd twice, both ends of the wake-up connection, two half-closed
	reservePerWay  = 3  // the listener, the lock of a Unix socket, one that is refused and not closed yet
	reserveOthers  = 24 // the log, the listeners of the admin interface (at most ten), what the Go runtime and the kernel's files take
)

// AdminConnections is the number of connections of the admin interface that the reserve has room for.
const AdminConnections = 24

// reservedDescriptors returns the number of descriptors that are not for connections.
func reservedDescriptors(loops, ways int) int {
	return reservePerLoop*loops + reservePerWay*ways + reactor.TransitDescriptors + AdminConnections + reserveOthers + maxRefusals
}

// openFiles returns the limit on open files. The Go runtime has raised the soft limit to the hard one.
func openFiles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		panic(fmt.Sprintf("server: getrlimit: %v", err)) // fails only for a wrong pointer or number
	}
	const most = 1 << 24 // if it is unlimited: more than the kernel gives a process
	return int(min(limit.Cur, most))
}
