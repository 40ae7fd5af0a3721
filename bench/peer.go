package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dreadlock/bench/fleet/etcdtest"
)

// The peers that can be started.
const (
	Daemon        = "dreadlock" // ours
	GnetEcho      = "gnet"      // the limit of the framework: an echo server on gnet with the daemon's options
	EpollEcho     = "epoll"     // the limit of the machine: an echo server on plain system calls
	RedisPeer     = "redis"
	MemcachedPeer = "memcached"
)

// The ways to a daemon other than plain TCP, and a daemon over plain TCP that is one of a fleet.
const (
	overTLS  = "tls"
	overUnix = "unix"
	inFleet  = "fleet"
)

var (
	ways       = []string{overTLS, overUnix}
	daemonWays = append(slices.Clone(ways), inFleet)
)

var peerKinds = []string{Daemon, GnetEcho, EpollEcho, RedisPeer, MemcachedPeer}

const (
	startTime = 30 * time.Second // within which a server has to answer
	stopTime  = 5 * time.Second  // after which a server that was asked to stop is killed
)

// ErrNotInstalled is wrapped by the error of Start if the peer's program is not installed.
var ErrNotInstalled = errors.New("bench: not installed")

// Peer says which server to start: "gnet:2" is one with two loops, "dreadlock+tls:2" a daemon that is reached by TLS,
// "dreadlock+fleet:2" one of a fleet. Or it is a server that is already running.
type Peer struct {
	Kind    string
	Way     string   // to the daemon: "tls" or "unix", or "fleet"; empty is plain TCP and a daemon that is alone
	Loops   int      // event loops or threads; 0 is one for each processor
	Target  *Target  // if it is running; nil if it is to be started
	Variant *Variant // of the daemon; nil for the ordinary one
}

// Peers starts servers. An echo server is this program itself, run with the arguments "peer --loops N --port N KIND": it
// has to call [ServeGnetEcho] or [ServeEpollEcho].
type Peers struct {
	// Daemon is the program of our daemon. If it is empty, the one next to this program is used, or else one is built
	// from the checkout.
	Daemon string
	// Members is the program in bench/fleet, for the member of etcd that a daemon of a fleet needs. If it is empty, the program
	// fleet next to this one is used, or else it is built from the checkout.
	Members string

	dir     string // for what is made for the servers; empty until it is needed
	certs   *certificate
	cluster *etcdtest.Cluster // nil until it is needed
}

// ParsePeer reads the name of a peer with its way and its loops, or the URL of a server: see [ParseTarget].
func ParsePeer(text string) (Peer, error) {
	if strings.Contains(text, "://") {
		target, err := ParseTarget(text)
		if err != nil {
			return Peer{}, err
		}
		return Peer{Kind: target.Kind, Loops: target.Loops, Target: target}, nil
	}
	name, loops, some := strings.Cut(text, ":")
	kind, way, another := strings.Cut(name, "+")
	p := Peer{Kind: kind, Way: way}
	if !slices.Contains(peerKinds, kind) {
		return p, fmt.Errorf("%w: %s: want a URL or one of %s", ErrTarget, text, strings.Join(peerKinds, ", "))
	}
	if another && (kind != Daemon || !slices.Contains(daemonWays, way)) {
		return p, fmt.Errorf("%w: %s: want %s+%s", ErrTarget, text, Daemon, strings.Join(daemonWays, " or "+Daemon+"+"))
	}
	var err error
	if some {
		if p.Loops, err = positive(loops); err != nil {
			return p, fmt.Errorf("%w: %s: loops: %w", ErrTarget, text, err)
		}
	}
	if kind == RedisPeer && p.Loops > 1 {
		return p, fmt.Errorf("%w: %s: redis has one loop", ErrTarget, text)
	}
	return p, nil
}

// loops returns the number of loops of the peer.
func (p Peer) loops() int {
	switch {
	case p.Target != nil:
		return p.Loops
	case p.Kind == RedisPeer:
		return 1
	case p.Loops == 0:
		return processors // as the daemon does
	}
	return p.Loops
}

// Name returns the peer's name in tables, which ends with its number of loops.
func (p Peer) Name() string {
	if p.Target != nil {
		return p.Target.Name
	}
	return p.label() + ":" + strconv.Itoa(p.loops())
}

// label returns the part of the name that peers have in common if only their loops differ.
func (p Peer) label() string {
	if p.Way != "" {
		return p.program() + "+" + p.Way
	}
	return p.program()
}

// program returns what names the program: the kind, or the variant.
func (p Peer) program() string {
	if p.Variant != nil {
		return p.Variant.Name
	}
	return p.Kind
}

// reference returns the peer that a variant, another way to the daemon or one of a fleet is compared with, and false if it is none.
func (p Peer) reference() (Peer, bool) {
	switch {
	case p.Target != nil:
		return p, false
	case p.Variant != nil:
		p.Variant = nil
		return p, true
	case p.Way != "":
		p.Way = ""
		return p, true
	}
	return p, false
}

// Dialect returns the protocol of the peer.
func (p Peer) Dialect() *Dialect {
	if p.Target != nil {
		return p.Target.Dialect
	}
	if p.Kind == GnetEcho || p.Kind == EpollEcho {
		return dialects["echo"]
	}
	return dialects[p.Kind]
}

// Server is a running server.
type Server struct {
	Target
	cmd    *exec.Cmd // nil if it was not started here
	alive  io.Closer // its input; an echo server ends when this is closed
	ended  chan struct{}
	stderr tail
}

// Start starts a peer on a free port of the loopback interface and returns when it accepts connections. A server that is
// already running is used as it is.
func (ps *Peers) Start(ctx context.Context, p Peer) (*Server, error) {
	if p.Target != nil {
		return &Server{Target: *p.Target}, nil
	}
	const attempts = 3 // a free port may be taken before the server binds it
	var last error
	for range attempts {
		s, err := ps.start(ctx, p)
		if err == nil {
			return s, nil
		}
		last = fmt.Errorf("start %s: %w", p.Name(), err)
		if errors.Is(err, ErrNotInstalled) || ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

func (ps *Peers) start(ctx context.Context, p Peer) (*Server, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	args, err := ps.command(ctx, p, port)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Target: Target{
			Name:    p.Name(),
			Kind:    p.Kind,
			Dialect: p.Dialect(),
			Network: "tcp",
			Address: net.JoinHostPort("127.0.0.1", port),
			Loops:   p.loops(),
		},
		ended: make(chan struct{}),
	}
	if p.Kind == Daemon {
		options, err := ps.listen(ctx, p.Way, &s.Target)
		if err != nil {
			return nil, err
		}
		args = append(args, options...)
	}
	s.cmd = exec.Command(args[0], args[1:]...) //nolint:noctx // Stop ends it, gracefully
	s.cmd.Dir = os.TempDir()
	if p.Variant != nil {
		s.cmd.Env = append(os.Environ(), p.Variant.Environment...)
		s.cmd.Args = append(s.cmd.Args, p.Variant.Options...)
	}
	s.cmd.Stderr = &s.stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if s.alive, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.PID = s.cmd.Process.Pid
	go func() {
		_ = s.cmd.Wait() // it matters only that it ended, and every process that has its output by a takeover
		close(s.ended)
	}()
	if err := s.awaitReady(ctx, p.Way == inFleet); err != nil {
		s.Stop()
		return nil, err
	}
	if p.Kind == Daemon {
		s.allocated, s.waiters = s.askAllocated, waitersOf(s.admin)
	}
	return s, nil
}

// awaitReady returns when the server accepts connections, and one of a fleet says that it is in touch with it.
func (s *Server) awaitReady(ctx context.Context, fleet bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		sock, _, err := s.dial(ctx)
		if err == nil {
			_ = sock.Close()
			if !fleet || s.inTouch(ctx) {
				return nil
			}
			err = errors.New("it is not in touch with its fleet")
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("it exited: %s%s", s.cmd.ProcessState, s.stderr.said())
		case <-ctx.Done():
			return fmt.Errorf("it does not serve at %s: %w: %w%s", s.Address, ctx.Err(), err, s.stderr.said())
		}
	}
}

// Stop ends the server if it was started here, and waits until it has ended.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.alive.Close()
	_ = s.signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-s.ended:
	case <-time.After(stopTime):
		_ = s.signal(syscall.SIGKILL)
		<-s.ended
	}
}

// signal sends a signal to the server: to the process that has taken over last. It has not ended, since it has the output.
func (s *Server) signal(sig syscall.Signal) error {
	select {
	case <-s.ended:
		return os.ErrProcessDone
	default:
		return syscall.Kill(s.PID, sig)
	}
}

// Ended returns an error if the server was started here and has exited.
func (s *Server) Ended() error {
	if s.cmd == nil {
		return nil
	}
	select {
	case <-s.ended:
		return fmt.Errorf("%s exited: %s%s", s.Name, s.cmd.ProcessState, s.stderr.said())
	default:
		return nil
	}
}

// command returns the command line of a peer, for the daemon without where it listens.
func (ps *Peers) command(ctx context.Context, p Peer, port string) ([]string, error) {
	loops := strconv.Itoa(p.loops())
	switch p.Kind {
	case Daemon:
		program, err := ps.daemon(ctx, p.Variant)
		return []string{program, "--loops", loops, "--log-level", "warn", "--log-format", "json"}, err
	case RedisPeer:
		program, err := installed("redis-server")
		return []string{
			program, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no",
			"--maxclients", "19000", "--tcp-backlog", "1024", "--daemonize", "no", "--loglevel", "warning",
		}, err
	case MemcachedPeer:
		program, err := installed("memcached")
		args := []string{program, "-l", "127.0.0.1", "-p", port, "-U", "0", "-t", loops, "-c", "19000", "-b", "1024"}
		if os.Geteuid() == 0 {
			args = append(args, "-u", "root") // otherwise it refuses to run as root
		}
		return args, err
	}
	self, err := os.Executable()
	return []string{self, "peer", "--loops", loops, "--port", port, p.Kind}, err
}

// Version returns the version that a peer's program prints, in one line; for the echo server on gnet, that of gnet. It is
// empty if unknown.
func (ps *Peers) Version(ctx context.Context, p Peer) string {
	switch p.Kind {
	case GnetEcho:
		return gnetVersion()
	case EpollEcho:
		return ""
	}
	args, err := ps.command(ctx, p, "0")
	if err != nil {
		return ""
	}
	said, err := exec.CommandContext(ctx, args[0], "--version").Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(said), "\n")
	line, _, _ = strings.Cut(line, " sha=") // details of redis's build follow
	return line
}

// gnetVersion returns the version of gnet that this program was built with.
func gnetVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "github.com/panjf2000/gnet/") {
				return m.Path + " " + m.Version
			}
		}
	}
	return ""
}

// directory returns the directory for what is made for the servers.
func (ps *Peers) directory() (string, error) {
	var err error
	if ps.dir == "" {
		ps.dir, err = os.MkdirTemp("", "dreadlock-bench-")
	}
	return ps.dir, err
}

// Close removes what was made for the servers: the daemon that was built, a certificate, sockets, a member of etcd.
func (ps *Peers) Close() {
	if ps.cluster != nil {
		ps.cluster.Stop()
	}
	if ps.dir != "" {
		_ = os.RemoveAll(ps.dir)
	}
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func installed(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	return path, nil
}

// freePort returns a port that is free.
func freePort(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close() //nolint:errcheck // only its port was needed
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}
