package bench

import (
	"context"
	"io"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// The daemon's defaults: see reactor.Run and server.DefaultConfig. The limit includes their cost.
const (
	echoKeepAlive = 30 * time.Second
	echoProbes    = 3
)

// ServeGnetEcho runs an echo server on gnet until the input ends, with the options that the daemon gives gnet.
func ServeGnetEcho(input io.Reader, address string, loops int) error {
	raiseProcs(loops)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		_, _ = io.Copy(io.Discard, input)
	}()
	return gnet.Run(&gnetEcho{stopped: ctx}, "tcp://"+address,
		gnet.WithNumEventLoop(loops),
		gnet.WithReusePort(true),
		gnet.WithReuseAddr(true),
		gnet.WithLoadBalancing(gnet.RoundRobin),
		gnet.WithTicker(true),
		gnet.WithTCPKeepAlive(echoKeepAlive),
		gnet.WithTCPKeepInterval(echoKeepAlive/echoProbes),
		gnet.WithTCPKeepCount(echoProbes),
		gnet.WithLogger(quiet{}),
	)
}

type gnetEcho struct {
	gnet.BuiltinEventEngine
	stopped context.Context
}

// OnTick runs on its own goroutine and waits for the end, as the daemon's does.
func (e *gnetEcho) OnTick() (time.Duration, gnet.Action) {
	<-e.stopped.Done()
	return time.Hour, gnet.Shutdown
}

// OnTraffic sends back what was read.
func (*gnetEcho) OnTraffic(c gnet.Conn) gnet.Action {
	data, _ := c.Next(-1)
	_, _ = c.Write(data) // an error closes the connection
	return gnet.None
}
