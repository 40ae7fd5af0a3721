package client

import (
	"math/rand/v2"
	"net"
	"time"

	"dreadlock/proto"
)

// Options says how a client connects. The zero value is ready to use; a number that is zero, or makes no sense, means
// the default.
type Options struct {
	// MaxIdle is the number of connections that are kept for the next lock; 16 by default. Negative: none. Programs
	// with more locks at a time than that raise it to save dials; where many processes share a small server, lower it.
	MaxIdle int

	// DialTimeout bounds one attempt to connect; 5 s by default.
	DialTimeout time.Duration

	// Attempts is how many connections one call tries to make until it has an answer; 8 by default. With the default
	// Backoff they take about 4 s where the server refuses, which is enough for it to be restarted.
	Attempts int

	// Backoff is the pause before the second attempt; 50 ms by default. It doubles with each further one, up to 32
	// times, and is shortened by a random part, up to half, so that the clients of a server that comes back do not all
	// come at once.
	Backoff time.Duration

	// KeepAlive is the silence of the server's host after which it is probed; after twice that, but not less than 3 s
	// more, it is taken for lost, and so are the locks. Whole seconds; 15 s by default, half of the server's own
	// default. Keep it below the server's, so that a holder that is cut off learns it first, and below what middleboxes
	// on the way forget.
	KeepAlive time.Duration

	// Name is what every connection is called at the server, on its pages, in its log and in the output of dreadlockctl:
	// one word of printable ASCII, such as user@host:program; see proto.ValidName. Empty: none. It costs a round trip for
	// each new connection. A client with a name learns besides when the server takes a silent host for dead, and shortens
	// KeepAlive where it would learn later than the server does that it has lost its locks.
	Name string

	// Owner says to the server that all connections of this client, and those of every other client with the same owner,
	// belong together: letters and digits, see proto.ValidOwner. Empty: none. It lets the server see deadlocks in which
	// one of them waits while another one holds. Set it only where that is true: if what waits for a lock gives back none
	// of the locks that the owner holds until its wait is over. That is so of one goroutine that takes lock after lock,
	// and of a command that runs under a lock and takes another; it is not of independent goroutines that share a client,
	// who would cause false alarms. It costs a round trip for each new connection, or nothing beside Name.
	Owner string

	// Fence has every lock come with its fencing token: see Lock.Token. The token is asked for in the same write as the
	// lock. A server that knows no tokens drops the connection, and the error is ErrConnectionLost.
	Fence bool
}

const (
	defaultMaxIdle     = 16
	defaultDialTimeout = 5 * time.Second
	defaultAttempts    = 8
	defaultBackoff     = 50 * time.Millisecond
	defaultKeepAlive   = 15 * time.Second

	maxDoublings    = 5                   // of Backoff
	maxBackoff      = time.Hour           // for Backoff itself: more is no pause but the end
	maxKeepAlive    = 32767 * time.Second // what the kernel takes
	keepAliveProbes = 3                   // that go unanswered
)

// withDefaults returns the options with every zero replaced.
func (o Options) withDefaults() Options {
	switch {
	case o.MaxIdle == 0:
		o.MaxIdle = defaultMaxIdle
	case o.MaxIdle < 0:
		o.MaxIdle = 0
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = defaultDialTimeout
	}
	if o.Attempts <= 0 {
		o.Attempts = defaultAttempts
	}
	if o.Backoff <= 0 {
		o.Backoff = defaultBackoff
	}
	o.Backoff = min(o.Backoff, maxBackoff)
	if o.KeepAlive <= 0 {
		o.KeepAlive = defaultKeepAlive
	}
	o.KeepAlive = min(o.KeepAlive, maxKeepAlive)
	return o
}

// invalid returns what is wrong with the name or the owner, nil if nothing is.
func (o *Options) invalid() error {
	if o.Name != "" {
		if err := proto.ValidName(o.Name); err != nil {
			return err
		}
	}
	if o.Owner != "" {
		return proto.ValidOwner(o.Owner)
	}
	return nil
}

// pause returns how long to wait after a number of failed attempts.
func (o *Options) pause(failed int) time.Duration {
	d := o.Backoff << min(failed-1, maxDoublings)
	return d - rand.N(d/2+1)
}

// probing returns how a silent host is probed, and the time after which it is taken for lost.
func probing(keepAlive time.Duration) (cfg net.KeepAliveConfig, silence time.Duration) {
	cfg = net.KeepAliveConfig{
		Enable:   true,
		Idle:     keepAlive,
		Interval: max(keepAlive/keepAliveProbes, time.Second),
		Count:    keepAliveProbes,
	}
	return cfg, keepAlive + max(keepAlive, keepAliveProbes*time.Second)
}

// shorter returns the KeepAlive by which a client learns well before its server that a host is silent; 0 if keepAlive is
// short enough.
func shorter(keepAlive, server time.Duration) time.Duration {
	if _, silence := probing(keepAlive); server == 0 || silence < server {
		return 0
	}
	return max(server/4, time.Second).Truncate(time.Second)
}
