package admin

import (
	"context"
	"errors"
	"fmt"
	stdlog "log" //nolint:depguard // http.Server logs to nothing else
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/admin/adminsock"
	"dreadlock/server/noise"
	"dreadlock/server/takeover"
	"dreadlock/server/unixsock"
)

const (
	// MaxConnections is the number of connections that are open at a time, at all addresses: see [limit]. Each takes a
	// descriptor, which the server must have in reserve. A browser opens six, Prometheus one.
	MaxConnections = 24
	// MaxAddresses is the number of addresses, without the default socket. Each takes a descriptor or two of the reserve, and
	// one of the connections while a new one waits for its place.
	MaxAddresses = 4
	// maxHeader is the maximum size of a request's header, in bytes. The longest key fits into its first line.
	maxHeader = 32 << 10

	headerTime = 5 * time.Second  // for the client to send a header
	readTime   = 10 * time.Second // for the client to send a request
	writeTime  = 30 * time.Second // to answer, and for the client to read the answer; a profile adds its own duration
	idleTime   = 5 * time.Second  // between two requests of a connection
	// stopTime is the time that requests under way have when the daemon stops. Then they are cut off.
	stopTime = 300 * time.Millisecond
)

// Server listens on its addresses and can serve.
type Server struct {
	cfg     Config
	token   *tokenFile // nil if requests need none
	limit   *limit
	handler http.Handler
	noise   *noise.Log // of requests that fail

	mu        sync.Mutex
	listeners []*listener // that of the default socket is the last
}

// Listen checks the options and takes the addresses. Errors name the flag, and wrap [ErrOption] or the reason why an address
// cannot be taken, such as syscall.EADDRINUSE. Requests are answered only once [Server.Serve] runs.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if len(cfg.Listen) > MaxAddresses {
		return nil, optionError("--admin: %d addresses, at most %d are possible", len(cfg.Listen), MaxAddresses)
	}
	var addresses []*address
	var hosts []string
	for _, text := range cfg.Listen {
		a, err := cfg.parse(text)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, a)
		if a.tcp != nil {
			hosts = append(hosts, a.host)
		}
	}
	s := &Server{cfg: cfg, limit: newLimit(), noise: noise.New(cfg.Log)}
	var err error
	if cfg.TokenFile != "" && len(hosts) > 0 {
		if s.token, err = openToken(cfg.TokenFile, cfg.Log); err != nil {
			return nil, err
		}
	}
	s.handler = newHandler(&s.cfg, s.token, s.limit, s.noise, hosts)
	for _, a := range addresses {
		l, err := s.listen(ctx, a)
		if err != nil {
			_ = s.Close()
			return nil, err
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

// Addresses returns the addresses of [Config.Listen] on which the server listens, as URLs.
func (s *Server) Addresses() (urls []string) {
	for _, l := range s.open() {
		urls = append(urls, l.url)
	}
	return urls
}

// ReloadToken reads the file of the token again, if requests need one. After an error, which wraps [ErrOption], the token of
// before stays in use. Safe from any goroutine.
func (s *Server) ReloadToken() error {
	if s.token == nil {
		return nil
	}
	return s.token.read()
}

// HasToken reports whether requests by TCP need a token.
func (s *Server) HasToken() bool { return s.token != nil }

// Close gives the addresses up. It is for a server that never served.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Serve answers requests until ctx is done, then stops within half a second. If it can no longer accept at an address, it
// logs that and goes on with the others.
func (s *Server) Serve(ctx context.Context) {
	server := &http.Server{
		Handler:           s.handler,
		ConnContext:       s.limit.remember,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          stdlog.New(warnings{s.noise}, "", 0),
	}
	server.RegisterOnShutdown(func() { close(s.limit.streams.ended) })
	var serving sync.WaitGroup
	defer s.noise.Flush()
	defer serving.Wait()
	serving.Go(func() { s.noise.Run(ctx) })
	serve := func(l *listener) {
		serving.Go(func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				s.cfg.Log.Error().Err(err).Str("address", l.url).
					Msg("the admin interface has failed at an address: restart the daemon to restore it")
			}
		})
	}
	s.own()
	for _, l := range s.open() {
		serve(l)
	}
	if l := s.openDefault(ctx); l != nil {
		s.mu.Lock()
		s.listeners = append(s.listeners, l)
		s.mu.Unlock()
		serve(l)
	}
	if ctx.Err() == nil {
		DiscardPassed(s.cfg.Predecessor)
	}
	if urls := s.Addresses(); len(urls) > 0 {
		s.cfg.Log.Info().
			Strs("addresses", urls).
			Bool("token", s.token != nil).
			Bool("pprof", s.cfg.PProf).
			Msg("admin is ready")
	}
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close() // cuts off what is still under way
	}
}

// openDefault opens the default socket as soon as the daemon is ready. It returns nil if there is none.
func (s *Server) openDefault(ctx context.Context) *listener {
	if s.cfg.Ready == nil {
		return nil
	}
	select {
	case port := <-s.cfg.Ready:
		for _, address := range adminsock.Addresses(port) {
			if l := s.takeDefault(address); l != nil {
				return l
			}
		}
		l, err := adminsock.Listen(port)
		if err != nil {
			s.cfg.Log.Info().Str("reason", err.Error()).Msg("no admin socket: dreadlockctl needs an address, see --admin")
			return nil
		}
		return s.share(l, "unix")
	case <-ctx.Done():
		return nil
	}
}

// takeDefault returns the default socket of a predecessor, which serves no more, if it has passed that; nil otherwise.
func (s *Server) takeDefault(address unixsock.Address) *listener {
	passed := s.cfg.Predecessor.TakeKey(takeover.AdminKey + address.Path)
	if passed == nil {
		return nil
	}
	adopted, err := passed.ListenUnix(address)
	if err != nil {
		return nil
	}
	if err := address.Own(adopted); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("the admin socket keeps the options that it had")
	}
	return s.share(adopted, "unix")
}

// warnings logs what net/http and the metrics handler report about requests. Other machines may cause that.
type warnings struct{ log *noise.Log }

// Write logs a line.
func (w warnings) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	w.log.Event(zerolog.WarnLevel, sourceIn(text), "admin request failed").Str("reason", text).Send()
	return len(line), nil
}

// sourceIn returns the source of a request that a line of net/http is about: "http: TLS handshake error from HOST:PORT: ...".
// Those of lines about no address are one.
func sourceIn(text string) noise.Source {
	for word := range strings.FieldsSeq(text) {
		if addr, err := netip.ParseAddrPort(strings.TrimSuffix(word, ":")); err == nil {
			return noise.Address(addr.Addr())
		}
	}
	return noise.Source{}
}

// Println logs its arguments as one line.
func (w warnings) Println(v ...any) {
	_, _ = w.Write([]byte(strings.ReplaceAll(fmt.Sprintln(v...), "\n", " "))) // never fails
}
