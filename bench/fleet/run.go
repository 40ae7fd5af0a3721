package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dreadlock/bench/fleet/etcdtest"
)

const (
	daemons = 3
	// startTime is how long a fleet may take until all its daemons are in touch.
	startTime = time.Minute
	// watchEvery is how often is looked what has become of the processes.
	watchEvery = 250 * time.Millisecond
)

// errNoDaemon says that there is no daemon to be run.
var errNoDaemon = errors.New("there is no daemon next to this program: run make fleet, or give --daemon FILE")

// runCommand runs a fleet.
type runCommand struct {
	Daemon    string        `type:"existingfile" placeholder:"FILE" help:"Program of the daemon. By default the one beside this program."`
	Port      int           `default:"6001" help:"Port of the first daemon; the others have the next ones. 0: free ones (${default})."`
	AdminPort int           `default:"7001" help:"The same for their admin interfaces (${default})."`
	FleetTTL  time.Duration `name:"fleet-ttl" default:"10s" help:"Time after which keys of a dead daemon are given away (${default})."`
	Restart   time.Duration `default:"30s" help:"Time after which what has ended is started again. 0s: never (${default})."`
}

// trial is a fleet that runs.
type trial struct {
	command   *runCommand
	out       io.Writer
	dir       *workDir
	cluster   *etcdtest.Cluster
	daemons   []*daemon
	processes []process
}

// Run runs the fleet until ctx is done.
func (c *runCommand) Run(ctx context.Context) (err error) {
	// A second signal, as make passes one on that the whole process group has got, does not keep it from stopping what runs.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(ignored)
	t := &trial{command: c, out: os.Stdout}
	if t.dir, err = newWorkDir(); err != nil {
		return err
	}
	defer t.dir.remove()
	defer t.stop()
	starting, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("the fleet is not in touch within %s", startTime))
	defer cancel()
	err = t.start(starting)
	switch {
	case ctx.Err() != nil: // a signal has ended it
		return nil
	case err != nil:
		return err
	}
	t.explain()
	t.watch(ctx)
	t.say("stopping")
	return nil
}

// say prints a line with the time.
func (t *trial) say(format string, args ...any) {
	fmt.Fprintf(t.out, time.Now().Format("15:04:05")+"  "+format+"\n", args...) //nolint:errcheck // who does not listen misses it
}

// start starts all processes, and returns when all daemons are in touch with the fleet.
func (t *trial) start(ctx context.Context) error {
	program, err := t.command.program()
	if err != nil {
		return err
	}
	clients, err := addresses(t.command.Port, "--port")
	if err != nil {
		return err
	}
	admins, err := addresses(t.command.AdminPort, "--admin-port")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	t.say("starting three members of etcd")
	if t.cluster, err = etcdtest.Start(etcdtest.Options{Program: self, Dir: t.dir.path}); err != nil {
		return err
	}
	for _, m := range t.cluster.Members {
		t.processes = append(t.processes, &member{m})
	}
	if _, err := t.cluster.AwaitLeader(ctx, clientv3.Config{Logger: zap.NewNop()}); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	t.say("starting three daemons")
	for i := range daemons {
		name := fmt.Sprintf("d%d", i)
		d := &daemon{
			name: name, address: clients[i], admin: "http://" + admins[i], log: filepath.Join(t.dir.path, name+".log"),
			command: []string{
				program, "--listen", clients[i], "--admin=", "--admin", admins[i], "--fleet", strings.Join(t.cluster.Endpoints(), ","),
				"--fleet-ttl", t.command.FleetTTL.String(), "--fleet-advertise", clients[i], "--log-format", "console",
			},
		}
		if err := d.start(); err != nil {
			return err
		}
		t.daemons = append(t.daemons, d)
		t.processes = append(t.processes, d)
	}
	return t.awaitTouch(ctx)
}

// awaitTouch waits until all daemons are in touch.
func (t *trial) awaitTouch(ctx context.Context) error {
	for _, d := range t.daemons {
		for state := d.state(); state != inTouch; state = d.state() {
			select {
			case <-d.ended:
				return fmt.Errorf("daemon %s: %s: %s", d.name, d.state(), d.lastWords())
			case <-ctx.Done():
				return fmt.Errorf("daemon %s: %w: %s", d.name, context.Cause(ctx), d.lastWords())
			case <-time.After(watchEvery / 5):
			}
		}
	}
	return nil
}

// program returns the path of the daemon's program.
func (c *runCommand) program() (string, error) {
	if c.Daemon != "" {
		return c.Daemon, nil
	}
	path := beside("dreadlock")
	if path == "dreadlock" {
		return "", errNoDaemon
	}
	return path, nil
}

// beside returns the path of a program of the project that is next to this one, or else just its name.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return name
	}
	return path
}

// addresses returns an address for each daemon, where nobody listens.
func addresses(first int, flag string) (all []string, err error) {
	for i := range daemons {
		port := first
		if first != 0 {
			port += i
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		ln, err := net.Listen("tcp", address) //nolint:noctx // it does not wait
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("somebody listens at %s: give another %s, or %s 0 for ports that are free", address, flag, flag)
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		defer ln.Close() //nolint:errcheck // only when all are known, so that they differ
		all = append(all, ln.Addr().String())
	}
	return all, nil
}

// explain says what there is, and what to try.
func (t *trial) explain() {
	table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\nprocess\tpid\tfor clients\tpage\n") //nolint:errcheck // who does not listen misses it
	for _, p := range t.processes {
		at, page := p.place()
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", p, p.pid(), at, page) //nolint:errcheck // as above
	}
	_ = table.Flush() // as above
	var servers []string
	for _, d := range t.daemons {
		servers = append(servers, d.address)
	}
	ctl := beside("dreadlockctl")
	if dir, err := os.Getwd(); err == nil && ctl != "dreadlockctl" {
		if short, err := filepath.Rel(dir, ctl); err == nil {
			ctl = short
		}
	}
	last, first := t.daemons[daemons-1], t.daemons[0]
	free := t.command.FleetTTL + time.Second
	_, _ = fmt.Fprintf(t.out, `
Try, in other terminals:

  export DREADLOCK_SERVER=%s
  %s lock deploy        # holds the key until Ctrl-C; in a second terminal it waits for it
  %s lock deploy --server %s -- date
                                      # a daemon that is asked by itself knows of the key as well
  kill -KILL %-7d                  # daemon %s dies: its clients turn to the others; its keys are free within %s
  kill -STOP %-7d                  # a member of etcd hangs, until kill -CONT: nobody notices
  %s status --admin %s   # what a daemon knows of the fleet; its page shows that as well

What ends is started again after %s. What the daemons say is in %s.
Ctrl-C stops everything.

`, strings.Join(servers, ","), ctl, ctl, last.address, first.pid(), first.name, free,
		t.cluster.Members[0].PID(), ctl, last.admin, t.command.Restart, filepath.Join(t.dir.path, "*.log"))
}

// watch says what becomes of the processes until ctx is done, and starts again what has ended.
func (t *trial) watch(ctx context.Context) {
	states := make(map[process]string)
	for _, p := range t.processes {
		states[p] = p.state()
	}
	again := make(map[process]time.Time) // when a process is started that has ended
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range t.processes {
			if state := p.state(); state != states[p] {
				states[p] = state
				t.say("%s %s", p, state)
			}
			when, waits := again[p]
			switch {
			case !hasEnded(p) || t.command.Restart == 0:
			case !waits:
				again[p] = time.Now().Add(t.command.Restart)
			case time.Now().After(when):
				delete(again, p)
				if err := p.start(); err != nil {
					t.say("%s cannot be started: %v", p, err)
					continue
				}
				states[p] = p.state()
				t.say("%s is started again, pid %d", p, p.pid())
			}
		}
	}
}

// stop ends all processes: the daemons in order, so that they leave the fleet, then the members.
func (t *trial) stop() {
	const patience = 10 * time.Second
	for _, d := range t.daemons {
		d.signal(syscall.SIGCONT) // a process that is stopped does not see the other one
		d.signal(syscall.SIGTERM)
	}
	late := time.After(patience)
	for _, d := range t.daemons {
		select {
		case <-d.ended:
		case <-late:
			d.signal(syscall.SIGKILL)
			<-d.ended
		}
	}
	if t.cluster != nil {
		t.cluster.Stop()
	}
}
