package server

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/lockmgr"
	"dreadlock/reactor"
)

// linger is how long a client that has ended may take to read the next of its answers.
const linger = 10 * time.Second

// Server is the daemon without its process. What it shares with its loops is constant once they run, or atomic.
type Server struct {
	cfg       Config
	seed      lockmgr.Seed
	space     uint64   // names the lock table: another one after every start
	shards    []*shard // by loop
	warnings  zerolog.Logger
	detector  *detector
	listeners []*reactor.Listener // the ways in
	drain     *drain
	// moveAfter is [moveAfter], the score at which a session moves to another loop.
	moveAfter int

	lastID      atomic.Uint64 // of a connection
	connections atomic.Int64  // admitted and not gone
	refusals    atomic.Int64  // refused and still open
	departed    atomic.Uint64 // connections that have left a loop for another
	arrived     atomic.Uint64 // those of them that are there, or have stayed

	mu      sync.Mutex
	service *service // nil unless it serves
}

// service is what can be said of a server from when its loops can be asked until they are about to end.
type service struct {
	address string // empty if it stops before it was ready
	began   time.Time
	stopped chan struct{} // closed when the loops are about to end
}

// New returns a server that does not serve yet. The error wraps [ErrOption].
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = connectionRoom(cfg.Loops)
	}
	srv := &Server{
		cfg:       cfg,
		seed:      lockmgr.MakeSeed(),
		space:     rand.Uint64(),
		moveAfter: moveAfter,
		warnings: cfg.Log.Sample(&zerolog.BurstSampler{
			Burst:       10,
			Period:      time.Second,
			NextSampler: &zerolog.BasicSampler{N: 1000},
		}),
	}
	srv.detector = newDetector(srv)
	srv.drain = newDrain()
	return srv, nil
}

// Run serves until ctx is done or a drain is over, and returns nil then. Otherwise the error wraps what is wrong with the
// address (syscall.EADDRINUSE and the like), or [reactor.ErrEnded] if the loops could not go on. It is to be called once.
func (srv *Server) Run(ctx context.Context) error {
	listener, err := reactor.Listen(ctx, srv.cfg.Listen, srv.cfg.KeepAlive)
	if err != nil {
		return err
	}
	srv.listeners = []*reactor.Listener{{Listener: listener}}
	serving, stop := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	helpers.Go(func() { srv.detector.run(serving) })
	helpers.Go(func() {
		srv.runDrain(serving)
		stop()
	})
	defer helpers.Wait()
	defer stop()
	return reactor.Run(serving, reactor.Config{
		Listeners: srv.listeners,
		Loops:     srv.cfg.Loops,
		Tick:      srv.cfg.Tick,
		KeepAlive: srv.cfg.KeepAlive,
		Linger:    linger,
		Log:       srv.cfg.Log,
		NewHandler: func(l *reactor.Loop) reactor.Handler {
			w := newWorker(srv, l)
			srv.shards = append(srv.shards, w.shard)
			return w
		},
		Ready:    func() { srv.ready(listener.Addr().String()) },
		Stopping: srv.stop,
		Ending:   srv.ending,
	})
}

// Ready reports whether the server serves new clients. Safe from any goroutine.
func (srv *Server) Ready() bool { return srv.serves() && !srv.drain.begun() }

// serves reports whether the server serves clients, perhaps only those that it has: the loops can be queried. Safe from any
// goroutine.
func (srv *Server) serves() bool {
	serving := srv.now()
	return serving != nil && serving.address != ""
}

// now returns what the server is serving, nil if it is not. Safe from any goroutine.
func (srv *Server) now() *service {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.service
}

// begin says that the loops run, so that they can be asked; with an address, that they serve.
func (srv *Server) begin(address string) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.service == nil {
		srv.service = &service{address: address, began: time.Now(), stopped: make(chan struct{})}
	}
}

// ready says in one line what is served.
func (srv *Server) ready(address string) {
	srv.begin(address)
	srv.cfg.Log.Info().
		Str("address", address).
		Int("loops", srv.cfg.Loops).
		Int("max_connections", srv.cfg.MaxConnections).
		Int("max_pipeline", srv.cfg.MaxPipeline).
		Int("max_output", srv.cfg.MaxOutput).
		Stringer("keepalive", srv.cfg.KeepAlive).
		Stringer("tick", srv.cfg.Tick).
		Str("version", srv.cfg.Version).
		Msg("dreadlock is ready")
	if srv.cfg.Ready != nil {
		srv.cfg.Ready(address)
	}
}

// ending says that the loops are about to end: nobody may send to them any more.
func (srv *Server) ending() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.service != nil {
		close(srv.service.stopped)
		srv.service = nil
	}
}

// admit counts a new connection in, unless there are too many.
func (srv *Server) admit() bool {
	if srv.connections.Add(1) <= int64(srv.cfg.MaxConnections) {
		return true
	}
	srv.connections.Add(-1)
	srv.warnings.Warn().Int("max_connections", srv.cfg.MaxConnections).
		Msg("connection refused: raise --max-connections, or look for clients that leak connections")
	return false
}

// connectionGone counts a connection out.
func (srv *Server) connectionGone() { srv.connections.Add(-1) }

// beginRefusal counts a refused connection in, unless too many of them are open.
func (srv *Server) beginRefusal() bool {
	if srv.refusals.Add(1) <= maxRefusals {
		return true
	}
	srv.refusals.Add(-1)
	return false
}

// shardOf returns the loop of a key. It takes the high bits of the hash: the table uses the low ones.
func (srv *Server) shardOf(hash uint64) int {
	return int(hash >> 32 * uint64(len(srv.shards)) >> 32)
}
