package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"dreadlock/server"
	"dreadlock/server/admin"
	"dreadlock/server/api"
	"dreadlock/server/takeover"
)

// takeoverRequests returns a channel that receives SIGUSR2. It stays registered until the process ends, since by default the
// signal ends the process. Requests that come during a takeover are one more.
func takeoverRequests() <-chan os.Signal {
	requests := make(chan os.Signal, 1)
	signal.Notify(requests, syscall.SIGUSR2)
	return requests
}

// serviceManagers are processes 1 that stay when a process that they have started ends.
var serviceManagers = []string{"systemd", "init"}

// findEnd returns why everything ends with this process, nil if it does not. A container ends with its process 1; the small inits of containers
// (tini, docker-init, dumb-init, catatonit) and shells end with the process that they have started. To be called when the process starts:
// later process 1 is the parent of every orphan, and does not wait for those.
func findEnd() error {
	if os.Getpid() == 1 {
		return errors.New("this is process 1 of its container, which ends with it: replace the container after a drain")
	}
	if os.Getppid() != 1 {
		return nil
	}
	// An init starts its process as the leader of a process group, a shell that is process 1 in its own one. Others are orphans: those who
	// have started them have ended since.
	group := syscall.Getpgrp()
	if first, err := syscall.Getpgid(1); err == nil && group != os.Getpid() && group != first {
		return nil
	}
	comm, _ := os.ReadFile("/proc/1/comm") // fails where a service manager hides it
	name := strings.TrimSpace(string(comm))
	if name == "" || slices.Contains(serviceManagers, name) {
		return nil
	}
	return fmt.Errorf("it was started by process 1 of its container, %s, which ends with it, and all that runs there: "+
		"replace the container after a drain", name)
}

// succession has successors take over from the daemon: the server as the admin interface sees it.
type succession struct {
	*server.Server
	command *takeover.Command
	end     error // why there can be no successor: see findEnd
	notify  *notifier
	view    *admin.Server            // nil if there is none
	handed  chan *takeover.Successor // gets the one that serves
}

// configure says how the server hands over, and from which process it takes over itself, if from any.
func (s *succession) configure(cfg *server.Config, predecessor *takeover.Predecessor) {
	cfg.Predecessor = predecessor
	cfg.Hangs = s.notify.becomeMain
	cfg.Successor = s.start
	cfg.AlsoPassed = func() ([]*takeover.Listener, error) {
		if s.view == nil {
			return nil, nil
		}
		return s.view.PassOn()
	}
	cfg.HandedOver = s.handedOver
}

// start starts a successor.
func (s *succession) start() (*takeover.Successor, error) {
	if s.end != nil {
		return nil, s.end
	}
	return s.command.Start()
}

// TakeOver is [server.Server.TakeOver], and tells systemd: as of a reload that ends with another process.
func (s *succession) TakeOver(ctx context.Context, by string) (*api.Takeover, error) {
	s.notify.reloading("STATUS=handing over to a new process")
	t, err := s.Server.TakeOver(ctx, by)
	if err != nil {
		s.notify.reloaded()
	}
	return t, err
}

// handedOver is called when the successor serves. [serve] ends the process then.
func (s *succession) handedOver(_ *api.Takeover, successor *takeover.Successor) {
	s.notify.handedOver(successor.PID())
	if s.view != nil {
		s.view.Leave()
	}
	s.handed <- successor
}

// handleRequests has a successor take over at every request, until ctx is done. The server logs what comes of it.
func (s *succession) handleRequests(ctx context.Context, requests <-chan os.Signal) {
	for {
		select {
		case <-requests:
			_, _ = s.TakeOver(ctx, "SIGUSR2")
		case <-ctx.Done():
			return
		}
	}
}
