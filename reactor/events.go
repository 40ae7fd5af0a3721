package reactor

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/rs/zerolog"
)

// events is what gnet calls. The context of a connection says whose it is: a *Loop has it as its wake-up connection,
// a *Conn is served, a *transfer comes from another loop, nil waits for its loop to start.
type events struct {
	*Reactor
	ctx     context.Context // of Run
	wakeUps []net.Conn
}

// OnBoot runs when the first socket listens, before the loops.
func (e *events) OnBoot(engine gnet.Engine) gnet.Action {
	e.engine = engine
	return gnet.None
}

// OnTick runs on a goroutine of its own. Its first call stays for the life of the engine: it starts the loops, is the
// ticker, and stops the loops.
func (e *events) OnTick() (time.Duration, gnet.Action) {
	if err := e.enroll(e.wakeUps); err != nil {
		e.log.Errorf("start the event loops: %v", err)
	} else {
		e.movable.Store(true)
		e.cfg.Listener.release()
		e.cfg.Ready()
		e.ticker.run(e.Reactor, e.ctx.Done())
	}
	e.drainTransfers()
	if e.ctx.Err() != nil {
		e.cfg.Stopping()
	}
	// Stop waits until its context is done, which it is: the end of Run is what is waited for.
	stopped, stop := context.WithCancel(context.Background())
	stop()
	_ = e.engine.Stop(stopped)
	return time.Hour, gnet.None
}

// OnShutdown runs when the loops are about to end, for whatever reason.
func (e *events) OnShutdown(gnet.Engine) {
	close(e.ended)
	e.cfg.Ending()
}

// OnOpen runs when a connection was accepted, or a wake-up connection enrolled.
func (e *events) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	switch owner := c.Context().(type) {
	case *Loop:
		e.started(owner, c)
	case *transfer:
		owner.arrive(c)
	default:
		if l := e.loopOf(c); l != nil {
			l.accept(c)
		}
	}
	return nil, gnet.None
}

// OnTraffic runs when something was read.
func (e *events) OnTraffic(c gnet.Conn) gnet.Action {
	switch owner := c.Context().(type) {
	case *Loop:
		_, _ = c.Discard(c.InboundBuffered())
		owner.turn()
	case *Conn:
		owner.data()
	}
	return gnet.None
}

// OnClose runs when a connection has ended.
func (e *events) OnClose(c gnet.Conn, err error) gnet.Action {
	switch owner := c.Context().(type) {
	case *Conn:
		owner.lost(err)
	case nil:
		e.forget(c)
	}
	return gnet.None
}

// gnetLog passes on what gnet logs, and keeps its first error: Run of gnet returns nil when its loops have failed.
// Those that follow say only that the loops end.
type gnetLog struct {
	log   zerolog.Logger
	mu    sync.Mutex
	first string
}

func (g *gnetLog) Debugf(format string, args ...any) { g.log.Debug().Msgf(format, args...) }
func (g *gnetLog) Infof(format string, args ...any)  { g.log.Debug().Msgf(format, args...) }
func (g *gnetLog) Warnf(format string, args ...any)  { g.log.Warn().Msgf(format, args...) }

// Errorf is about the engine as a whole: gnet logs no errors of single connections.
func (g *gnetLog) Errorf(format string, args ...any) {
	g.mu.Lock()
	if g.first == "" {
		g.first = fmt.Sprintf(format, args...)
	}
	g.mu.Unlock()
	g.log.Error().Msgf(format, args...)
}

// Fatalf does not exit, as gnet's own logger would: Run returns.
func (g *gnetLog) Fatalf(format string, args ...any) { g.Errorf(format, args...) }

func (g *gnetLog) firstError() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first
}
