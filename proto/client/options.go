package client

import (
	"math/rand/v2"
	"time"
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

// pause returns how long to wait after a number of failed attempts.
func (o *Options) pause(failed int) time.Duration {
	d := o.Backoff << min(failed-1, maxDoublings)
	return d - rand.N(d/2+1)
}

// probeInterval returns the time between two probes of a silent host.
func (o *Options) probeInterval() time.Duration {
	return max(o.KeepAlive/keepAliveProbes, time.Second)
}

// silence returns the time after which a silent host is taken for lost.
func (o *Options) silence() time.Duration {
	return o.KeepAlive + max(o.KeepAlive, keepAliveProbes*time.Second)
}
