package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrTarget is wrapped by errors about a target that is invalid or cannot run a workload.
var ErrTarget = errors.New("bench: bad target")

// Target is a server to measure.
type Target struct {
	Name    string   // in tables; unique in a comparison
	Kind    string   // of a peer, or the dialect of a server that was given by its URL
	Dialect *Dialect // its protocol
	Network string   // "tcp" or "unix"
	Address string   // host:port, or the path of a socket
	Loops   int      // event loops or worker threads; 0 if unknown
	PID     int      // its process on this machine; 0 if unknown, then processor time and memory are not measured

	others []*Target // that have the same locks: see Together

	tls *tls.Config // over TCP; nil without TLS

	admin string // host:port of the admin interface of our daemon; empty if it is not known

	// allocated returns the number of heap objects that the server has allocated so far; nil if it does not report it.
	allocated func(context.Context) (int64, error)
	// waiters returns the number of connections that wait for a held key; nil if the server does not report it.
	waiters func(ctx context.Context, key string) (int, error)
}

// ParseTarget parses a URL: dreadlock://HOST:PORT, redis://, memcached:// or echo://. With TLS it is dreadlock+tls://HOST:PORT,
// and over a Unix socket dreadlock+unix:///PATH. The query may have the process of the server, a name for tables, its number of
// loops and its admin interface: ?pid=123&name=old&loops=1&admin=HOST:PORT. With TLS, ?ca=FILE has the authorities that are
// trusted instead of those of the system.
func ParseTarget(text string) (*Target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	kind, way, _ := strings.Cut(u.Scheme, "+")
	dialect := dialects[kind]
	if dialect == nil || way != "" && !slices.Contains(ways, way) {
		return nil, fmt.Errorf("%w: %s: want dreadlock://, redis://, memcached:// or echo://, or one with +tls or +unix", ErrTarget, text)
	}
	t := &Target{Name: u.Scheme + "://" + u.Host + u.Path, Kind: kind, Dialect: dialect, Network: "tcp", Address: u.Host}
	if way == overUnix {
		if u.Host != "" || len(u.Path) < 2 {
			return nil, fmt.Errorf("%w: %s: want a path after %s://", ErrTarget, text, u.Scheme)
		}
		t.Network, t.Address = "unix", u.Path
	} else if _, _, err := net.SplitHostPort(u.Host); err != nil || u.Port() == "" || u.Path != "" {
		return nil, fmt.Errorf("%w: %s: want a host and a port after %s://", ErrTarget, text, u.Scheme)
	} else if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return nil, fmt.Errorf("%w: %s: the port must be a number from 1 to 65535", ErrTarget, text)
	}
	if way == overTLS {
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	}
	for key, values := range u.Query() {
		switch value := values[len(values)-1]; key {
		case "ca":
			err = t.trust(value)
		case "admin":
			t.admin, t.waiters = value, waitersOf(value)
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

// trust makes TLS trust the authorities in a file.
func (t *Target) trust(file string) error {
	if t.tls == nil {
		return errors.New("it is for TLS: want " + t.Kind + "+tls://")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	t.tls.RootCAs = x509.NewCertPool()
	if !t.tls.RootCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s has no certificates in PEM", file)
	}
	return nil
}

// Together returns servers that have the same locks, a fleet, as one target: its connections are spread over them in turn, and its
// processor time and memory are those of all. It does not report what only one of them would know: allocations, and who waits.
func Together(name string, servers []*Server) *Target {
	t := servers[0].Target
	t.Name, t.allocated, t.waiters = name, nil, nil
	for _, s := range servers[1:] {
		t.others = append(t.others, &s.Target)
	}
	return &t
}

// of returns the server of the connection with a number.
func (t *Target) of(id int) *Target {
	if i := id % (1 + len(t.others)); i > 0 {
		return t.others[i-1]
	}
	return t
}

// processorTime returns the processor time that the process has used, with those of others.
func (t *Target) processorTime() (time.Duration, error) {
	sum, err := processorTime(t.PID)
	for _, o := range t.others {
		own, failed := o.processorTime()
		sum, err = sum+own, cmp.Or(err, failed)
	}
	return sum, err
}

// residentMemory returns the resident memory of the process in bytes, with those of others.
func (t *Target) residentMemory() (int64, error) {
	sum, err := residentMemory(t.PID)
	for _, o := range t.others {
		own, failed := o.residentMemory()
		sum, err = sum+own, cmp.Or(err, failed)
	}
	return sum, err
}

// dial makes a connection and, with TLS, does the handshake.
func (t *Target) dial(ctx context.Context) (net.Conn, *secured, error) {
	var dialer net.Dialer
	sock, err := dialer.DialContext(ctx, t.Network, t.Address)
	if err != nil || t.tls == nil {
		return sock, nil, err
	}
	s, err := handshake(ctx, sock, t.tls)
	return sock, s, err
}

// Can returns an error that wraps ErrTarget if the server cannot run the workload.
func (t *Target) Can(w *Workload) error {
	if w.Kind.Queues() && !t.Dialect.Queues {
		return fmt.Errorf("%w: %s cannot run %s: %s does not queue requests for a key", ErrTarget, t.Name, w.Kind, t.Dialect.Name)
	}
	if w.Kind == Takeover && t.admin == "" {
		return fmt.Errorf("%w: %s cannot run %s: want our daemon and its admin interface: add ?admin=HOST:PORT", ErrTarget, t.Name, w.Kind)
	}
	if w.Kind == Takeover && t.tls != nil {
		return fmt.Errorf("%w: %s cannot run %s: a takeover ends connections by TLS", ErrTarget, t.Name, w.Kind)
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
