package reactor

import (
	"fmt"
	"slices"
	"sync"

	"github.com/panjf2000/gnet/v2"
	"github.com/rs/zerolog"
)

// events is what gnet calls. The context of a connection says whose it is: a *Loop has it as its wake-up connection,
// a *Conn is served, a *wakeUp, an *enrollment, a *transfer or *blanks are brought to the loop.
type events struct {
	gnet.BuiltinEventEngine
	*Reactor
}

// OnOpen runs when a connection was enrolled.
func (e *events) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	switch owner := c.Context().(type) {
	case *wakeUp:
		owner.opened(c)
	case *enrollment:
		e.loopOf(c).accept(c, owner)
	case *transfer:
		owner.arrive(c)
	case *blanks:
		return nil, owner.opened(e.loopOf(c), c)
	}
	return nil, gnet.None
}

// loopOf returns the loop on which gnet has opened a connection.
func (r *Reactor) loopOf(c gnet.Conn) *Loop {
	at := slices.IndexFunc(r.loops, func(l *Loop) bool { return l.events == c.EventLoop() })
	return r.loops[at]
}

// OnTraffic runs when something was read.
func (e *events) OnTraffic(c gnet.Conn) gnet.Action {
	switch owner := c.Context().(type) {
	case *Loop:
		_, _ = c.Discard(c.InboundBuffered()) // that many are there
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
	case *Loop:
		e.wakeUpLost(owner, err)
	}
	return gnet.None
}

// gnetLog passes on what gnet logs, and keeps its first error: those that follow say only that the loops
// end.
type gnetLog struct {
	log    zerolog.Logger
	failed func() // called after each error

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
	g.failed()
}

// Fatalf does not exit, as gnet's own logger would: Run returns.
func (g *gnetLog) Fatalf(format string, args ...any) { g.Errorf(format, args...) }

func (g *gnetLog) firstError() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first
}
