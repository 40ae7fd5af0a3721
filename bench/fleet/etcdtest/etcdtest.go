// Package etcdtest runs the members of an etcd cluster as processes of this machine, for trials and tests: they can be stopped, killed,
// and started again. They are those of the program in bench/fleet.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Build builds the program of the members into a directory, and returns its path.
func Build(dir string) (program string, err error) {
	program = filepath.Join(dir, "fleet")
	build := exec.Command("go", "build", "-o", program, "dreadlock/bench/fleet") //nolint:noctx // it ends by itself
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build, err, output)
	}
	return program, nil
}

// Find returns the program of the members that is next to this program. If there is none it is built into a directory.
func Find(dir string) (program string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), "fleet")
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
		return beside, nil
	}
	return Build(dir)
}

// Options say what cluster to run.
type Options struct {
	// Program is what [Build] has built.
	Program string
	// Dir is for the data and the logs of the members.
	Dir string
	// Members is their number, 3 by default.
	Members int
	// Scheme is that of the URLs for clients: http by default.
	Scheme string
	// Fsync has them wait for the disk, as members do outside of tests.
	Fsync bool
	// Args are further options of every member, see "fleet member --help".
	Args []string
}

// Cluster is a cluster whose members are processes.
type Cluster struct {
	Members []*Member
}

// Member is a member of a cluster. Its methods are for one goroutine at a time.
type Member struct {
	// Name is m0, m1, and so on.
	Name string
	// URL is that for clients.
	URL string

	peerURL string
	command []string
	log     string
	process *exec.Cmd // nil if it does not run
	exited  chan struct{}
	err     error // of the process, once it has exited
}

// Start starts a cluster. It may take a moment until it has a leader: see [Cluster.AwaitLeader].
func Start(o Options) (*Cluster, error) {
	if o.Members == 0 {
		o.Members = 3
	}
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	addresses, err := freeAddresses(2 * o.Members)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	var all []string
	for i := range o.Members {
		m := &Member{
			Name: fmt.Sprintf("m%d", i), URL: o.Scheme + "://" + addresses[2*i], peerURL: "http://" + addresses[2*i+1],
		}
		m.log = filepath.Join(o.Dir, m.Name+".log")
		c.Members = append(c.Members, m)
		all = append(all, m.Name+"="+m.peerURL)
	}
	for _, m := range c.Members {
		m.command = append([]string{
			o.Program, "member", "--name", m.Name, "--data-dir", filepath.Join(o.Dir, m.Name), "--client-url", m.URL, "--peer-url", m.peerURL,
			"--initial-cluster", strings.Join(all, ","), "--log-file", m.log,
		}, o.Args...)
		if !o.Fsync {
			m.command = append(m.command, "--unsafe-no-fsync")
		}
		if err := m.Start(); err != nil {
			c.Stop()
			return nil, err
		}
	}
	return c, nil
}

// freeAddresses returns addresses of this machine at which nobody listens.
func freeAddresses(n int) (all []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
		if err != nil {
			return nil, err
		}
		defer ln.Close() //nolint:errcheck // only when all are known, so that they differ
		all = append(all, ln.Addr().String())
	}
	return all, nil
}

// Endpoints returns the URLs for clients.
func (c *Cluster) Endpoints() (all []string) {
	for _, m := range c.Members {
		all = append(all, m.URL)
	}
	return all
}

// AwaitLeader waits until the members that answer have a leader, and returns it. The options may have what a client needs beside the
// endpoints.
func (c *Cluster) AwaitLeader(ctx context.Context, options clientv3.Config) (*Member, error) {
	for {
		for _, m := range c.Members {
			if m.process == nil {
				continue
			}
			status, err := m.status(ctx, options)
			switch {
			case err == nil && status.Leader == status.Header.MemberId:
				return m, nil
			case ctx.Err() != nil:
				return nil, fmt.Errorf("etcd has no leader: %w (%s)", ctx.Err(), c.logs())
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// status asks a member.
func (m *Member) status(ctx context.Context, options clientv3.Config) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	options.Endpoints = []string{m.URL}
	client, err := clientv3.New(options)
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // it has no more to say
	return client.Status(ctx, m.URL)
}

// logs returns the ends of the members' logs.
func (c *Cluster) logs() string {
	const end = 1000
	var all []string
	for _, m := range c.Members {
		text, err := os.ReadFile(m.log)
		if err != nil {
			text = []byte(err.Error())
		}
		all = append(all, m.Name+": "+string(text[max(0, len(text)-end):]))
	}
	return strings.Join(all, "\n")
}

// Stop ends all members at once.
func (c *Cluster) Stop() {
	for _, m := range c.Members {
		m.Kill()
	}
}

// Start starts a member that does not run.
func (m *Member) Start() error {
	if m.process != nil {
		return fmt.Errorf("member %s runs", m.Name)
	}
	process := exec.Command(m.command[0], m.command[1:]...)                               //nolint:noctx // Kill ends it
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is not for the members
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		return err
	}
	m.process, m.exited = process, make(chan struct{})
	go func() {
		m.err = process.Wait()
		close(m.exited)
	}()
	return nil
}

// Runs reports whether the member runs, or is paused. One that has ended by itself counts until it is killed or stopped.
func (m *Member) Runs() bool { return m.process != nil }

// PID returns the process of a member that runs.
func (m *Member) PID() int { return m.process.Process.Pid }

// Exited is closed when a member that runs has ended, by itself or by [Member.Kill] and [Member.Stop].
func (m *Member) Exited() <-chan struct{} { return m.exited }

// Kill ends a member at once, as a machine does that loses its power. It does nothing to one that does not run.
func (m *Member) Kill() {
	if m.process == nil {
		return
	}
	_ = m.process.Process.Kill() // it may have ended by itself
	<-m.exited
	m.process = nil
}

// Stop lets a member end in order, which may take some seconds.
func (m *Member) Stop() error {
	if m.process == nil {
		return nil
	}
	if err := m.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-m.exited
	m.process = nil
	return m.err
}

// Pause stops a member in the middle of what it does, like a virtual machine that is paused.
func (m *Member) Pause() error { return m.process.Process.Signal(syscall.SIGSTOP) }

// Resume lets a member continue that is paused.
func (m *Member) Resume() error { return m.process.Process.Signal(syscall.SIGCONT) }
