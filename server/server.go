package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/lockmgr"
	"dreadlock/reactor"
)

// stopTime bounds how long the loops may take to say what is held when the server stops.
const stopTime = 300 * time.Millisecond

// server is what the loops share. All of it is safe from any goroutine: constant once the loops run, or atomic.
type server struct {
	cfg      Config
	seed     lockmgr.Seed
	shards   []*shard // by loop
	warnings zerolog.Logger
	// moveAfter is [moveAfter], the strength of the pull at which a session moves to another loop.
	moveAfter int

	connections atomic.Int64 // admitted and not gone
	refusals    atomic.Int64 // refused and still open
}

// Run serves until ctx is done, and returns nil then. Otherwise the error wraps [ErrOption], what is wrong with the
// address (syscall.EADDRINUSE and the like), or [reactor.ErrEnded] if the loops could not go on.
func Run(ctx context.Context, cfg Config) error {
	srv, err := newServer(cfg)
	if err != nil {
		return err
	}
	return srv.run(ctx)
}

func newServer(cfg Config) (*server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = connectionRoom(cfg.Loops)
	}
	return &server{
		cfg:       cfg,
		seed:      lockmgr.MakeSeed(),
		moveAfter: moveAfter,
		warnings: cfg.Log.Sample(&zerolog.BurstSampler{
			Burst:       10,
			Period:      time.Second,
			NextSampler: &zerolog.BasicSampler{N: 1000},
		}),
	}, nil
}

func (srv *server) run(ctx context.Context) error {
	listener, err := reactor.Listen(srv.cfg.Listen)
	if err != nil {
		return err
	}
	return reactor.Run(ctx, reactor.Config{
		Listener:  listener,
		Loops:     srv.cfg.Loops,
		Tick:      srv.cfg.Tick,
		KeepAlive: srv.cfg.KeepAlive,
		Log:       srv.cfg.Log,
		NewHandler: func(l *reactor.Loop) reactor.Handler {
			sh := newShard(srv, l)
			srv.shards = append(srv.shards, sh)
			return sh
		},
		Ready:    func() { srv.ready(listener.Address()) },
		Stopping: srv.stop,
	})
}

// ready says in one line what is served.
func (srv *server) ready(address string) {
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

// admit counts a new connection in, unless there are too many.
func (srv *server) admit() bool {
	if srv.connections.Add(1) <= int64(srv.cfg.MaxConnections) {
		return true
	}
	srv.connections.Add(-1)
	srv.warnings.Warn().Int("max_connections", srv.cfg.MaxConnections).
		Msg("connection refused: raise --max-connections, or look for clients that leak connections")
	return false
}

// dismiss counts a connection out.
func (srv *server) dismiss() { srv.connections.Add(-1) }

// beginRefusal counts a refused connection in, unless too many of them are open.
func (srv *server) beginRefusal() bool {
	if srv.refusals.Add(1) <= maxRefusals {
		return true
	}
	srv.refusals.Add(-1)
	return false
}

// shardOf returns the loop of a key. It takes the high bits of the hash: the table uses the low ones.
func (srv *server) shardOf(hash uint64) int {
	return int(hash >> 32 * uint64(len(srv.shards)) >> 32)
}

// census closes a shard and counts what it has. It travels to the shard's loop as a message.
type census struct {
	message reactor.Message // Body: the census
	result  chan<- holdings
}

// holdings is what a shard has.
type holdings struct {
	keys, waiters int
}

// count closes the shard: from now on nothing is granted, answered or released, until the process ends. Whoever holds a
// key keeps it until his connection is closed, which tells him that it is lost.
func (sh *shard) count(c *census) {
	sh.closed = true
	c.result <- holdings{keys: sh.table.Keys(), waiters: sh.table.Waiters()} // has room for all shards
}

// stop closes all shards while their loops still run, and says what was held.
func (srv *server) stop() {
	connections := srv.connections.Load()
	results := make(chan holdings, len(srv.shards))
	for _, sh := range srv.shards {
		c := &census{result: results}
		c.message.Body = c
		sh.loop.Send(&c.message)
	}
	var sum holdings
	timeout := time.After(stopTime)
	for answered := range srv.shards {
		select {
		case h := <-results:
			sum.keys += h.keys
			sum.waiters += h.waiters
		case <-timeout:
			srv.cfg.Log.Warn().Int("loops", len(srv.shards)-answered).Msg("busy loops are stopped without counting what they hold")
			srv.stopped(connections, sum)
			return
		}
	}
	srv.stopped(connections, sum)
}

func (srv *server) stopped(connections int64, sum holdings) {
	srv.cfg.Log.Info().
		Int64("connections", connections).
		Int("held_keys", sum.keys).
		Int("waiters", sum.waiters).
		Msg("dreadlock stops: all keys are free")
}
