package server

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/reactor"
	"dreadlock/server/api"
	"dreadlock/server/noise"
)

// linger is how long a client that has ended may take to read the next of its answers.
const linger = 10 * time.Second

// Server is the daemon without its process. What it shares with its loops is constant once they run, or atomic.
type Server struct {
	cfg        Config
	seed       lockmgr.Seed
	space      uint64 // names the lock table: another one after every start
	ways       []*way
	shards     []*shard // by loop
	tally      *tally
	warnings   *noise.Log // of what clients do wrong
	detector   *detector
	history    *history  // nil if no events are kept
	eventLog   *eventLog // nil if events are not logged
	drain      *drain
	turnover   *turnover
	reactor    *reactor.Reactor // set when the loops are made
	entrances  []*entrance      // set when they are open
	budget     *budget
	heldAtStop atomic.Bool // keys were held, or rested, when the loops ended
	// moveAfter is [moveAfter], the score at which a session moves to another loop.
	moveAfter int
	pace      pace
	inherits  bool          // it takes over from a predecessor, or has
	started   time.Time     // when the first of its predecessors began to serve; zero if it has none
	opens     time.Duration // until when free keys rest that were the predecessor's, see [lockmgr.Table.SetDelay]
	takeover  *api.Takeover // by which this process became the server, nil if it started with nothing; constant once it serves

	lastID          atomic.Uint64 // of a connection
	connections     atomic.Int64  // admitted and not gone
	refusals        atomic.Int64  // refused and still open
	barred          [barriers]atomic.Uint64
	acceptErrors    errorCounts
	walks           chan struct{} // has a token for each walk, see [Server.beginWalk]
	takeoversFailed atomic.Uint64
	departed        atomic.Uint64 // connections that have left a loop for another
	arrived         atomic.Uint64 // those of them that are there, or have stayed

	mu      sync.Mutex
	service *service // nil unless it serves
}

// service is what can be said of a server from when its loops can be asked until they are about to end.
type service struct {
	address string   // the first; empty if it stops before it was ready
	listen  []string // all, as URLs
	port    int      // of the first on TCP, 0 if there is none
	began   time.Time
	stopped chan struct{} // closed when the loops are about to end
}

// New returns a server that does not serve yet. The error wraps [ErrOption].
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ways, err := parseWays(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = openFiles() - reservedDescriptors(cfg.Loops, len(ways))
	}
	srv := &Server{
		cfg:       cfg,
		seed:      lockmgr.MakeSeed(),
		space:     rand.Uint64(),
		ways:      ways,
		tally:     newTally(cfg.MaxPerAddress),
		moveAfter: moveAfter,
		inherits:  cfg.Predecessor != nil,
		walks:     make(chan struct{}, maxWalks),
		warnings:  noise.New(cfg.Log),
		pace:      defaultPace(),
	}
	srv.detector = newDetector(srv)
	srv.history = newHistory(srv)
	if srv.cfg.wantsEventLog() {
		srv.eventLog = newEventLog(srv)
	}
	srv.drain = newDrain()
	srv.turnover = newTurnover()
	srv.budget = newBudget(cfg.memoryLimit(), cfg.Loops)
	return srv, nil
}

// Run serves until ctx is done or a drain is over, and returns nil then. Otherwise the error wraps why an address cannot be
// taken (syscall.EADDRINUSE and the like), [ErrOption] if an option does not fit a socket that was passed, or
// [reactor.ErrEnded] if the loops could not go on. It is to be called once.
func (srv *Server) Run(ctx context.Context) error {
	entrances, err := srv.openWays(ctx)
	if err != nil {
		return err
	}
	srv.entrances = entrances
	serving, stop := srv.untilItStops(ctx)
	var helpers sync.WaitGroup
	inTouch, leave := context.WithCancel(context.WithoutCancel(ctx))
	helpers.Go(func() { srv.detector.run(serving) })
	helpers.Go(func() { srv.keepMemory(serving) })
	helpers.Go(func() {
		srv.runDrain(serving, entrances)
		stop()
	})
	helpers.Go(func() { srv.warnings.Run(serving) })
	if srv.eventLog != nil {
		helpers.Go(func() { srv.eventLog.run(serving) })
	}
	helpers.Go(func() { srv.warnOfTwins(serving, entrances) })
	defer srv.warnings.Flush()
	defer helpers.Wait()
	defer leave() // when all connections are closed: until then the others must not get what is held
	defer stop()
	return reactor.Run(serving, reactor.Config{
		Listeners: srv.listeners(entrances),
		Loops:     srv.cfg.Loops,
		Tick:      srv.cfg.Tick,
		KeepAlive: srv.cfg.KeepAlive,
		Linger:    linger,
		Log:       srv.cfg.Log,
		Start:     srv.startOf(),
		Inherit:   srv.inheritor(entrances),
		NewHandler: func(l *reactor.Loop) reactor.Handler {
			srv.reactor = l.Reactor()
			w := newWorker(srv, l)
			srv.shards = append(srv.shards, w.shard)
			return w
		},
		Ready: func() {
			srv.ready(entrances)
			if srv.cfg.Predecessor != nil {
				helpers.Go(func() { srv.awaitPredecessor(serving) })
			}
			if store := srv.cfg.Fleet; store != nil {
				helpers.Go(func() { store.Run(inTouch, fleetMember{srv}) })
			}
		},
		Abandoned:    func(info any, err error) { srv.abandoned(info.(*arrival), err) },
		AcceptFailed: srv.acceptErrors.add,
		Stopping:     srv.stop,
		Ending:       srv.ending,
	})
}

// untilItStops returns a context that is done when the server has to end: when ctx is done, or stop is called. After a takeover that is
// never: what the loops have is a successor's then.
func (srv *Server) untilItStops(ctx context.Context) (serving context.Context, stop func()) {
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	stop = func() {
		if srv.turnover.bar(errStops) {
			end()
		}
	}
	context.AfterFunc(ctx, stop)
	return serving, stop
}

// lockSpace names what the clients' keys belong to. In a fleet it is 0 until the daemon was in touch with the store. Safe from any
// goroutine.
func (srv *Server) lockSpace() uint64 {
	if srv.cfg.Fleet != nil {
		return srv.cfg.Fleet.Space()
	}
	return srv.space
}

// Ready reports whether the server serves new clients. Safe from any goroutine.
func (srv *Server) Ready() bool { return srv.serves() && !srv.drain.begun() }

// serves reports whether the server serves clients, perhaps only those that it has: the loops can be queried. Safe from any
// goroutine.
func (srv *Server) serves() bool {
	serving := srv.now()
	return serving != nil && serving.address != ""
}

// Port returns the port of the first address on TCP, 0 if there is none or the server does not serve. Safe from any
// goroutine.
func (srv *Server) Port() int {
	if serving := srv.now(); serving != nil {
		return serving.port
	}
	return 0
}

// now returns what the server is serving, nil if it is not. Safe from any goroutine.
func (srv *Server) now() *service {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.service
}

// begin says that the loops run, so that they can be asked; with entrances, that they serve.
func (srv *Server) begin(entrances []*entrance) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.service == nil {
		srv.service = &service{began: srv.started, stopped: make(chan struct{})}
		if srv.started.IsZero() {
			srv.service.began = time.Now()
		}
		for _, e := range entrances {
			srv.service.listen = append(srv.service.listen, e.url)
			if addr, ok := e.listener.Addr().(*net.TCPAddr); ok && srv.service.port == 0 {
				srv.service.port = addr.Port
			}
		}
		if len(entrances) > 0 {
			srv.service.address = entrances[0].address()
		}
	}
}

// ready says in one line what is served.
func (srv *Server) ready(entrances []*entrance) {
	srv.begin(entrances)
	service := srv.now()
	srv.cfg.Log.Info().
		Str("address", service.address).
		Strs("listen", service.listen).
		Int("loops", srv.cfg.Loops).
		Int("max_connections", srv.cfg.MaxConnections).
		Int("max_connections_per_address", srv.cfg.MaxPerAddress).
		Stringer("idle_timeout", srv.cfg.IdleTimeout).
		Int("max_pipeline", srv.cfg.MaxPipeline).
		Int("max_output", srv.cfg.MaxOutput).
		Int("max_keys", srv.cfg.MaxKeys).
		Int("max_key_bytes", srv.cfg.MaxKeyBytes).
		Int64("max_memory", srv.budget.limit).
		Stringer("keepalive", srv.cfg.KeepAlive).
		Stringer("tick", srv.cfg.Tick).
		Int("events", srv.cfg.Events).
		Stringer("lock_delay", srv.cfg.LockDelay).
		Str("version", srv.cfg.Version).
		Msg("dreadlock is ready")
	if d := srv.cfg.LockDelay; d > 0 && srv.cfg.Fleet == nil {
		srv.cfg.Log.Info().Stringer("lock_delay", d).Time("until", srv.grantsAt()).
			Msg("nothing is granted yet: who held a key before the start may still be about to stop")
	}
	if srv.cfg.Ready != nil {
		srv.cfg.Ready(service.address)
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

// shardOf returns the loop of a key. It takes the high bits of the hash: the table uses the low ones.
func (srv *Server) shardOf(hash uint64) int {
	return int(hash >> 32 * uint64(len(srv.shards)) >> 32)
}
