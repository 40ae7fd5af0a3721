package admin

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"dreadlock/server/takeover"
	"dreadlock/server/unixsock"
)

// socketMode is the mode of a Unix socket without ?mode=.
const socketMode = 0o600

// address is an address to listen on.
type address struct {
	flag   string            // names it in errors
	scheme string            // unix, http or https
	socket *unixsock.Address // of unix
	tcp    *net.TCPAddr      // of the others
	host   string            // of the others, as given
}

// parse parses an address of --admin. A host is looked up here and nowhere else, so that the address that was checked is the
// one that is used.
func (c *Config) parse(text string) (*address, error) {
	a := &address{flag: "--admin " + text, scheme: "http"}
	if strings.HasPrefix(text, "unix:") {
		socket, err := parseSocket(text)
		if err != nil {
			return nil, optionError("%s: %w", a.flag, err)
		}
		a.scheme, a.socket = "unix", socket
		return a, nil
	}
	rest := text
	if scheme, after, found := strings.Cut(text, "://"); found && (scheme == "http" || scheme == "https") {
		a.scheme, rest = scheme, strings.TrimSuffix(after, "/")
	}
	host, port, err := net.SplitHostPort(rest)
	a.host = strings.ToLower(host)
	if err != nil {
		return nil, optionError("%s: want host:port, https://host:port or unix:///path", a.flag)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return nil, optionError("%s: the port must be a number from 0 to 65535", a.flag)
	}
	if a.tcp, err = net.ResolveTCPAddr("tcp", rest); err != nil {
		return nil, optionError("%s: %w", a.flag, err)
	}
	if a.scheme == "https" && c.Certificates == nil {
		return nil, optionError("%s: it needs --tls-cert and --tls-key", a.flag)
	}
	if c.TokenFile == "" && !a.tcp.IP.IsLoopback() { // without a host it is every address
		return nil, optionError("%s: other machines can reach this address: it needs --admin-token-file (or use 127.0.0.1)", a.flag)
	}
	return a, nil
}

// parseSocket parses unix:///PATH?mode=0660&group=NAME.
func parseSocket(text string) (*unixsock.Address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	for name := range u.Query() {
		if name != "mode" && name != "group" {
			return nil, fmt.Errorf("there is no parameter %s: want mode or group", name)
		}
	}
	socket, err := unixsock.ParseURL(u, socketMode)
	return &socket, err
}

// listener listens on an address.
type listener struct {
	net.Listener
	url string
	raw net.Listener // without what is counted and encrypted
	key string       // names it to a process that takes over
	own func() error // does what a predecessor would have noticed; nil without one
}

// listen takes the address, by the socket that the predecessor has passed for it if there is one.
func (s *Server) listen(ctx context.Context, a *address) (*listener, error) {
	var raw net.Listener
	var own func() error
	var err error
	if a.socket != nil {
		raw, own, err = s.listenUnix(*a.socket)
	} else if passed := s.cfg.Predecessor.TakeKey(takeover.AdminKey + a.tcp.String()); passed != nil {
		raw, err = passed.Listen()
	} else {
		var config net.ListenConfig
		raw, err = config.Listen(ctx, "tcp", a.tcp.String())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.flag, err)
	}
	l := s.share(raw, a.scheme)
	l.own = own
	if a.tcp != nil {
		l.key = takeover.AdminKey + a.tcp.String()
	}
	return l, nil
}

// listenUnix opens a Unix socket.
func (s *Server) listenUnix(address unixsock.Address) (l net.Listener, own func() error, err error) {
	passed := s.cfg.Predecessor.TakeKey(takeover.AdminKey + address.Path)
	if passed == nil {
		l, err = address.Listen()
		return l, nil, err
	}
	adopted, err := passed.ListenUnix(address)
	return adopted, func() error { return address.Own(adopted) }, err
}

// share makes a listener of ours: its connections are counted with all others, and encrypted for https.
func (s *Server) share(raw net.Listener, scheme string) *listener {
	where := url.URL{Scheme: scheme}
	key := takeover.AdminKey
	if scheme == "unix" {
		where.Path = raw.Addr().String()
		key += where.Path
	} else {
		where.Host = raw.Addr().String()
	}
	l := s.limit.share(raw)
	if scheme == "https" {
		l = tls.NewListener(l, s.cfg.Certificates.Config())
	}
	return &listener{Listener: l, url: where.String(), raw: raw, key: key}
}
