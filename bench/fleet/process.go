package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"dreadlock/bench/fleet/etcdtest"
)

// inTouch is the state of a daemon that all is well with.
const inTouch = "is in touch with the fleet"

// process is one of those that a fleet is made of. All that it does is for one goroutine.
type process interface {
	fmt.Stringer
	// start starts it, also when it has ended.
	start() error
	// pid returns the number of the process that was started last.
	pid() int
	// end is closed when that one has ended.
	end() <-chan struct{}
	// state says in words how it is.
	state() string
	// place returns the URLs or addresses for clients and for people.
	place() (clients, page string)
}

// hasEnded reports whether a process has ended.
func hasEnded(p process) bool {
	select {
	case <-p.end():
		return true
	default:
		return false
	}
}

// isStopped reports whether a process has got SIGSTOP.
func isStopped(pid int) bool {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return false // it has ended
	}
	stat, err := proc.Stat()
	return err == nil && stat.State == "T"
}

// member is a member of etcd.
type member struct{ *etcdtest.Member }

func (m *member) String() string                { return "etcd " + m.Name }
func (m *member) pid() int                      { return m.PID() }
func (m *member) end() <-chan struct{}          { return m.Exited() }
func (m *member) place() (clients, page string) { return m.URL, "" }

func (m *member) start() error {
	m.Kill()
	return m.Start()
}

func (m *member) state() string {
	switch {
	case hasEnded(m):
		return "has ended"
	case isStopped(m.PID()):
		return "is stopped"
	}
	return "runs"
}

// daemon is a daemon.
type daemon struct {
	name    string
	address string   // for clients
	admin   string   // URL
	log     string   // file with what it says
	command []string // that starts it
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it has ended
}

func (d *daemon) String() string                { return "daemon " + d.name }
func (d *daemon) pid() int                      { return d.cmd.Process.Pid }
func (d *daemon) end() <-chan struct{}          { return d.ended }
func (d *daemon) place() (clients, page string) { return d.address, d.admin }

func (d *daemon) start() error {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()                                   //nolint:errcheck // the daemon has its own descriptor
	cmd := exec.Command(d.command[0], d.command[1:]...) //nolint:noctx // the end of the trial ends it
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for this program alone
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DREADLOCK_") })
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.ended = cmd, make(chan struct{})
	go func() {
		_ = cmd.Wait() // state looks at how it has ended
		close(d.ended)
	}()
	return nil
}

// signal sends a signal to the daemon, unless it has ended.
func (d *daemon) signal(s syscall.Signal) { _ = d.cmd.Process.Signal(s) }

func (d *daemon) state() string {
	switch {
	case hasEnded(d):
		return "has ended: " + d.cmd.ProcessState.String()
	case isStopped(d.pid()):
		return "is stopped"
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(d.admin + "/api/v1/status") //nolint:noctx // it has a timeout
	if err != nil {
		return "does not answer"
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	var status struct {
		Fleet struct {
			InTouch bool   `json:"in_touch"`
			Reason  string `json:"reason"`
		} `json:"fleet"`
	}
	switch err := json.NewDecoder(response.Body).Decode(&status); {
	case err != nil:
		return "does not answer"
	case status.Fleet.InTouch:
		return inTouch
	case status.Fleet.Reason == "":
		return "is not in touch with the fleet"
	}
	return "is not in touch with the fleet: " + status.Fleet.Reason
}

// lastWords returns the end of what the daemon has said.
func (d *daemon) lastWords() string {
	const most = 1000
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
