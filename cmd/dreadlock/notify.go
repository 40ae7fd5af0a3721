package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/dustin/go-humanize/english"
	"github.com/rs/zerolog"

	"dreadlock/server/api"
	"dreadlock/server/takeover"
)

const (
	// statusPeriod is how often systemd is told what is served, if that has changed.
	statusPeriod = 5 * time.Second
	// statusTime bounds how long the loops may take to say what they serve.
	statusTime = time.Second
	// stopMargin is the time that systemd gives the daemon to end after a drain. It needs less than a second.
	stopMargin = 10 * time.Second
	// tellTime bounds how long a message may wait for a reader whose queue is full.
	tellTime = time.Second
)

// notifier tells systemd how the daemon is: see sd_notify(3). Where nobody is to be told it says nothing.
type notifier struct {
	log zerolog.Logger
	// send sends a message, one NAME=value a line; nil where nobody is to be told.
	send func(message string) error
	// period is [statusPeriod].
	period time.Duration
	// watchdog is the time within which systemd wants a sign of life; zero if it wants none.
	watchdog time.Duration

	ready chan struct{} // closed when the daemon serves
	// predecessor is closed when the process is the main one of its service: systemd ignores the others. Nil if it always was.
	predecessor <-chan struct{}
	deaf        atomic.Bool // the last message could not be sent

	mu      sync.Mutex
	status  string // what was last said of the service
	reloads int    // that are under way; READY=1 ends all
	handed  bool   // another process is the main one
}

// monitored is what the notifier asks of a server.
type monitored interface {
	Status(ctx context.Context) (*api.Status, error)
	Alive(ctx context.Context) error
}

// newNotifier returns a notifier for whoever has set the environment: NOTIFY_SOCKET says where to send, and WATCHDOG_USEC
// with WATCHDOG_PID which sign of life is wanted from which process.
func newNotifier(log zerolog.Logger, predecessor *takeover.Predecessor) (*notifier, error) {
	n := &notifier{log: log, period: statusPeriod, ready: make(chan struct{})}
	if predecessor != nil {
		n.predecessor = predecessor.Left()
	}
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return n, nil
	}
	n.send = func(message string) error { return sendTo(socket, message) }
	var err error
	n.watchdog, err = systemd.SdWatchdogEnabled(false)
	return n, err
}

// sendTo sends one message. systemd.SdNotify does the same, but waits without a bound for a reader that does not read.
func sendTo(socket, message string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetWriteDeadline(time.Now().Add(tellTime)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(message))
	return err
}

// serving says that the daemon serves. It is called once, and never blocks.
func (n *notifier) serving(string) { close(n.ready) }

// reloading says that a reload begins, or a takeover: it ends with reloaded or handedOver. Before the daemon serves nothing is
// told: a reload ends with the same message as a start.
func (n *notifier) reloading(status string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isMain() {
		return
	}
	n.reloads++
	n.tell(systemd.SdNotifyReloading, strings.TrimSpace(systemd.SdNotifyMonotonicUsec()), status)
}

// reloaded ends a reload.
func (n *notifier) reloaded() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.reloads == 0 {
		return
	}
	if n.reloads--; n.reloads == 0 && !n.handed {
		n.tell(systemd.SdNotifyReady, "STATUS="+n.status)
	}
}

// handedOver says that another process is the main one of the service. From then on this one says nothing more.
func (n *notifier) handedOver(pid int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handed = true
	n.tell(fmt.Sprintf("MAINPID=%d", pid), systemd.SdNotifyReady)
}

// becomeMain says that this process is the main one, since the predecessor does not say it. systemd believes that if the unit has
// NotifyAccess=all.
func (n *notifier) becomeMain() {
	n.tell(fmt.Sprintf("MAINPID=%d", os.Getpid()), systemd.SdNotifyReady)
}

// isMain reports whether systemd takes this process for the main one of a service that serves.
func (n *notifier) isMain() bool {
	return !n.handed && isClosed(n.ready) && (n.predecessor == nil || isClosed(n.predecessor))
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// draining says that the daemon drains, and ends at that time at the latest. Until then systemd must not take it for one that
// hangs: a drain may take longer than TimeoutStopSec=. Safe from any goroutine.
func (n *notifier) draining(until time.Time) {
	left := max(time.Until(until), 0) + stopMargin
	n.tellUnlessHanded(systemd.SdNotifyStopping, "STATUS=draining", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", left.Microseconds()))
}

// run tells systemd when the daemon serves, what it serves, when it reloads, and, once ctx is done, that it stops. It does
// the reloads, one after the other, and none before the daemon serves: a reload ends with the same message as a start. A process that
// has taken over was told of by its predecessor, as the main one that serves.
func (n *notifier) run(ctx context.Context, srv monitored, requests <-chan os.Signal, reload func()) {
	defer n.tellUnlessHanded(systemd.SdNotifyStopping, "STATUS=stopping")
	for _, awaited := range []<-chan struct{}{n.ready, n.predecessor} {
		if awaited == nil {
			continue
		}
		select {
		case <-awaited:
		case <-ctx.Done():
			return
		}
	}
	if n.predecessor == nil {
		n.tellStatus("serving", systemd.SdNotifyReady)
	}

	// The sign of life comes from a goroutine of its own: a reload that hangs is no reason to end the daemon.
	var watchdog sync.WaitGroup
	watchdog.Go(func() { n.feedWatchdog(ctx, srv) })
	defer watchdog.Wait()

	var status <-chan time.Time // never, if nobody is to be told: an idle daemon sleeps
	if n.send != nil {
		n.report(ctx, srv)
		ticker := time.NewTicker(n.period)
		defer ticker.Stop()
		status = ticker.C
	}
	for {
		select {
		case <-status:
			n.report(ctx, srv)
		case <-requests:
			n.reloading("STATUS=reloading")
			reload()
			n.reloaded()
		case <-ctx.Done():
			return
		}
	}
}

// report tells what is served, unless that is what was said last. Where the loops do not say in time, nothing is told:
// that is the watchdog's concern.
func (n *notifier) report(ctx context.Context, srv monitored) {
	bounded, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	st, err := srv.Status(bounded)
	if err != nil {
		return
	}
	verb := "serving"
	if st.Drain != nil {
		verb = "draining"
	}
	status := fmt.Sprintf("%s %s, %s held, %d waiting", verb,
		english.Plural(st.Connections, "connection", ""), english.Plural(st.HeldKeys, "key", ""), st.Waiters)
	n.tellStatus(status)
}

// tellStatus tells what is served after the other lines, unless that is what was said last.
func (n *notifier) tellStatus(status string, lines ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if status == n.status || n.handed {
		return
	}
	n.status = status
	n.tell(append(lines, "STATUS="+status)...)
}

// tellUnlessHanded sends a message unless another process is the main one.
func (n *notifier) tellUnlessHanded(lines ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.handed {
		n.tell(lines...)
	}
}

// feedWatchdog gives the sign of life that systemd wants, twice as often as it must come, as long as all loops answer.
// Without it systemd ends the daemon and starts it again.
func (n *notifier) feedWatchdog(ctx context.Context, srv monitored) {
	if n.watchdog == 0 {
		return
	}
	period := n.watchdog / 2
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		bounded, cancel := context.WithTimeout(ctx, period)
		err := srv.Alive(bounded)
		cancel()
		switch {
		case err == nil:
			n.tellUnlessHanded(systemd.SdNotifyWatchdog)
		case ctx.Err() == nil:
			n.log.Warn().Err(err).Stringer("watchdog", n.watchdog).
				Msg("no sign of life for systemd's watchdog, which ends the daemon if this lasts")
		}
	}
}

// tell sends a message of several lines. The first one that cannot be sent is logged.
func (n *notifier) tell(lines ...string) {
	if n.send == nil {
		return
	}
	err := n.send(strings.Join(lines, "\n"))
	if failed := err != nil; n.deaf.Swap(failed) != failed && failed {
		n.log.Warn().Err(err).Msg("systemd cannot be told how the daemon is: look at NOTIFY_SOCKET")
	}
}
