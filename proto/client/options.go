package client

import (
	"crypto/tls"
	"math/rand/v2"
	"time"
)

// Options configures a client. The zero value is ready to use: a number that is zero or out of range means the default.
type Options struct {
	// MaxIdle is the largest number of idle connections that are kept for later locks; 16 by default. Negative: none.
	// Raise it in programs that hold more locks at a time, to connect less often; lower it where many processes share a
	// small server.
	MaxIdle int

	// DialTimeout limits one attempt to connect, the handshake of TLS included; 5 s by default. With several servers that is one
	// attempt at all of them.
	DialTimeout time.Duration

	// First is the server to begin with, of several: as Lock.Server names it. By default it is one of them at random, so that the
	// clients of a fleet spread over it. Deadlocks are found among the locks at one server: a program that waits under the lock of
	// another one begins with the server of that.
	First string

	// Attempts is the largest number of attempts that one call makes in a row until it has an answer. Each takes a
	// connection, with several servers up to one to each, and up to three at an older server. By default there
	// is no limit: Lock tries until its wait is over or its context ends, and TryLock tries once. An attempt that stood in
	// the queue for more than 5 s before the connection was lost begins a new row.
	Attempts int

	// Backoff is the pause before the second attempt; 50 ms by default. It doubles with each further attempt, up to 5 s,
	// and is shortened at random by up to half, so that the clients of a restarted server do not all connect at once.
	Backoff time.Duration

	// Trouble is called when a call of Lock cannot reach the server, or has lost its place in the queue with its
	// connection, and will try again: with the key and the error, once, however many attempts fail. It is called again,
	// with an *OtherTableError, if its server is gone and those that are there have another lock table, and with a nil error when the call
	// stands in the queue again, at its end. A call that returns is not reported. It must
	// be safe from any goroutine, and the call waits for it. Nil: none.
	Trouble func(key string, err error)

	// KeepAlive is the time without traffic after which the server's host is probed. If it stays silent for the same
	// time again, the connection and its lock are lost. 15 s by default, half of the server's default; at least 100 ms. The
	// server announces after what time it takes a silent client for lost: where a quarter of that is less than KeepAlive, it
	// counts instead, so that a holder that is cut off learns it before the key goes to another. An older server announces
	// nothing: keep KeepAlive below the keepalive of that. Keep it also below the time after which the NAT or firewall on the way
	// forgets a connection. While no lock is held, the kernel probes, in whole seconds and for at least 3 s; while one is held,
	// heartbeats do: see Silence. A Unix socket has no host that could be silent.
	KeepAlive time.Duration

	// Heartbeat is the longest time between two heartbeats while a lock is held: a command that the server answers. It is for
	// proxies and load balancers on the way that close idle connections, to which the kernel's probes are not traffic: choose
	// less than half of their time. By default there is one heartbeat in every KeepAlive, and none over a Unix socket or if
	// the server looks for no silent clients; none is sent to an older server either. A lock is lost if a heartbeat is answered
	// too late, within twice KeepAlive, or if the answer is that the key is not held. A connection that waits for a lock can
	// send nothing: to such a proxy it is idle, and loses its place in the queue.
	Heartbeat time.Duration

	// Name is the name of every connection, by which the status page, the API, the log and dreadlockctl show it: one word
	// of printable ASCII, at most 128 bytes; see proto.ValidName. By default it is user@host:pid:command, made by
	// DefaultName. A connection says it together with its first request, so it costs no round trip. The answer says after
	// what time the server takes a silent host for lost: see KeepAlive.
	Name string

	// Owner tells the server that the connections of all clients with this owner belong together: letters and digits,
	// see proto.ValidOwner. Empty: what contexts tell, see Lock.Context and WithOwner. The server can then see deadlocks in
	// which one of these connections waits and another one holds. Set it only if whoever waits on one of them releases
	// nothing that the others hold until the wait is over. That is true of one goroutine that takes several locks, and of a
	// command that runs under one lock and takes another. It is not true of independent goroutines that share a client:
	// they would cause false alarms.
	Owner string

	// TLS configures the connections to a tls:// address: RootCAs are the authorities whose servers are trusted, those of
	// the system by default; Certificates is what the server may want to see, none by default; and the server's certificate
	// must be for ServerName, which is the host of the address by default. It is copied by New: a program that outlives its
	// certificate gives GetClientCertificate. With a plain TCP address it is an error, so that a tls:// that was forgotten
	// does not mean a connection that is not encrypted. A Unix socket needs none, and it is not used.
	TLS *tls.Config

	// Fence asks for a fencing token with every lock, in the same write: see Lock.Token. A server that is too old to have
	// tokens ends the connection, and the error is ErrConnectionLost.
	Fence bool

	// TryFence is Fence for programs that can do without: with a server that is too old to have tokens, Lock.Token is 0.
	TryFence bool
}

// DefaultKeepAlive is the default of Options.KeepAlive.
const DefaultKeepAlive = 15 * time.Second

const (
	defaultMaxIdle     = 16
	defaultDialTimeout = 5 * time.Second
	defaultBackoff     = 50 * time.Millisecond

	maxBackoff   = time.Hour // for Backoff itself
	minKeepAlive = 100 * time.Millisecond
	minHeartbeat = 10 * time.Millisecond
	maxKeepAlive = 32767 * time.Second // the kernel's limit
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
	o.Attempts = max(o.Attempts, 0)
	if o.Backoff <= 0 {
		o.Backoff = defaultBackoff
	}
	o.Backoff = min(o.Backoff, maxBackoff)
	if o.KeepAlive <= 0 {
		o.KeepAlive = DefaultKeepAlive
	}
	o.KeepAlive = min(max(o.KeepAlive, minKeepAlive), maxKeepAlive)
	if o.Heartbeat > 0 {
		o.Heartbeat = max(o.Heartbeat, minHeartbeat)
	}
	if o.Name == "" {
		o.Name = ownName()
	}
	return o
}

// pause returns the pause after a number of failed attempts.
func (o *Options) pause(failed int) time.Duration {
	d, most := o.Backoff, max(o.Backoff, maxPause)
	for i := 1; i < failed && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d - rand.N(d/2+1)
}
