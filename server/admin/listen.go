package admin

import (
	"context"
	"errors"
	"fmt"
	stdlog "log" //nolint:depguard // http.Server logs to nothing else
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"
)

const (
	// MaxConnections is the number of connections that are open at a time; others wait in the listen queue. Each takes a
	// descriptor, which the server must have in reserve. A browser opens six, Prometheus one.
	MaxConnections = 24
	// maxHeader is the maximum size of a request's header, in bytes. The longest key fits into its first line.
	maxHeader = 32 << 10

	headerTime = 5 * time.Second  // for the client to send a header
	readTime   = 10 * time.Second // for the client to send a request
	writeTime  = 30 * time.Second // to answer, and for the client to read the answer; a profile adds its own duration
	idleTime   = 30 * time.Second // between two requests of a connection
	// stopTime is the time that requests under way have when the daemon stops. Then they are cut off.
	stopTime = 300 * time.Millisecond
)

// Server listens on its address and can serve.
type Server struct {
	cfg      Config
	token    *token
	listener net.Listener
	handler  http.Handler
}

// Listen checks the options and takes the address. Errors name the flag, and wrap [ErrOption] or the reason why the address
// cannot be taken, such as syscall.EADDRINUSE. Requests are answered only once [Server.Serve] runs.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	address, err := cfg.address()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg}
	if cfg.TokenFile != "" {
		if s.token, err = readToken(cfg.TokenFile, cfg.Log); err != nil {
			return nil, err
		}
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", address.String())
	if err != nil {
		return nil, fmt.Errorf("--admin %s: %w", cfg.Listen, err)
	}
	s.listener = netutil.LimitListener(listener, MaxConnections)
	s.handler = newHandler(&s.cfg, s.token)
	return s, nil
}

// Address returns the address on which the server listens, as host:port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close gives the address up. It is for a server that never served.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers requests until ctx is done, then stops within half a second and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          stdlog.New(warnings{s.cfg.Log}, "", 0),
	}
	stopped := make(chan struct{})
	cancelStop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // cuts off what is still under way
		}
	})
	s.cfg.Log.Info().
		Str("address", s.Address()).
		Bool("token", s.token != nil).
		Bool("pprof", s.cfg.PProf).
		Msg("admin is ready")
	err := server.Serve(s.listener)
	if !errors.Is(err, http.ErrServerClosed) {
		cancelStop()
		return fmt.Errorf("admin on %s: %w", s.Address(), err)
	}
	<-stopped
	return nil
}

// warnings logs what net/http and the metrics handler report about requests.
type warnings struct{ log zerolog.Logger }

// Write logs a line.
func (w warnings) Write(line []byte) (int, error) {
	w.log.Warn().Str("reason", strings.TrimSpace(string(line))).Msg("admin request failed")
	return len(line), nil
}

// Println logs its arguments as one line.
func (w warnings) Println(v ...any) {
	_, _ = w.Write([]byte(strings.ReplaceAll(fmt.Sprintln(v...), "\n", " "))) // never fails
}
