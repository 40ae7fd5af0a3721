package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// daemon is a process of the daemon, and after a takeover the one that has taken over from it.
type daemon struct {
	t     *trial
	cmd   *exec.Cmd // that has started the first one
	lock  string    // its Unix socket for clients
	admin *http.Client
	log   logBuffer
	ended chan struct{} // closed when the process has ended, and none has taken over from it
	died  bool          // its end was wanted
	lives lives

	restarts bool // it is taken over from: a request for the admin interface may find no answer, and is sent again

	excused bool // it has ended by a fault that no program survives
}

// start starts the daemon of the lab and returns when it serves.
func (l *lab) start(options ...string) {
	l.startBy(nil, options...)
	l.t.must(l.daemon.awaitReady())
}

// startBy starts the daemon of the lab by a command, that its own command line is appended to.
func (l *lab) startBy(by []string, options ...string) {
	l.daemon = l.t.startDaemon(l.host.Do, by, ":"+port, options...)
}

// startDaemon starts a daemon that listens at an address. It is ended at the end of the case. The start itself is made by start, with a
// command that the daemon's command line is appended to.
func (t *trial) startDaemon(start func(func() error) error, by []string, address string, options ...string) *daemon {
	lockPath, adminPath := t.path("lock.sock"), t.path("admin.sock")
	args := append(append([]string{}, by...), t.program(), "--log-format", "json",
		"--listen", address, "--listen", "unix://"+lockPath, "--admin=", "--admin", "unix://"+adminPath)
	args = append(args, options...)
	d := &daemon{
		t:     t,
		cmd:   exec.Command(args[0], args[1:]...), //nolint:noctx // the end of the case ends it
		lock:  lockPath,
		lives: lives{ends: map[int]*os.ProcessState{}},
		ended: make(chan struct{}),
		admin: &http.Client{Timeout: patience, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var dialer net.Dialer
				return dialer.DialContext(ctx, "unix", adminPath)
			},
		}},
	}
	d.cmd.Dir = t.dir
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	text, write, err := os.Pipe() // which a successor goes on to write into
	t.must(err)
	defer write.Close() //nolint:errcheck // the daemon has it now
	d.cmd.Stderr = write
	t.must(start(d.cmd.Start))
	t.cleanup(d.kill)
	go d.follow(text)
	return d
}

// awaitReady returns when the daemon serves, with an error if it has ended.
func (d *daemon) awaitReady() error {
	for deadline := time.Now().Add(patience); !strings.Contains(d.log.String(), "dreadlock is ready"); d.t.pause(time.Millisecond) {
		if !d.running() {
			return fmt.Errorf("the daemon ends: %s: %s", d.lives.end(), d.log.String())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon is not ready within %s: %s", patience, d.log.String())
		}
	}
	return nil
}

func (d *daemon) running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// endsWithin reports whether the daemon has ended, or does within a time.
func (d *daemon) endsWithin(patience time.Duration) bool {
	select {
	case <-d.ended:
		return true
	case <-time.After(patience):
		return false
	}
}

// signal sends a signal to the daemon.
func (d *daemon) signal(s syscall.Signal) { _ = syscall.Kill(d.pid(), s) }

// kill ends the daemon, and whatever has started it or was started by it, at once.
func (d *daemon) kill() {
	if d.running() {
		d.died = true
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) // the group: it leads one
		<-d.ended
	}
	d.admin.CloseIdleConnections()
}

// stop asks the daemon to stop. It must do so with status 0.
func (d *daemon) stop() {
	d.admin.CloseIdleConnections()
	d.signal(syscall.SIGTERM)
	d.died = true
	select {
	case <-d.ended:
		if end := d.lives.end(); !end.Success() {
			d.t.violate("the daemon stops with %s: %s", end, d.log.String())
		}
	case <-time.After(patience):
		d.t.violate("the daemon does not stop within %s", patience)
		d.kill()
	}
}

// checkLog looks for a daemon that has ended by itself, or that says what it must not.
func (d *daemon) checkLog() {
	if d.excused {
		return
	}
	if !d.running() && !d.died {
		d.t.violate("the daemon has ended: %s: %s", d.lives.end(), d.log.String())
	}
	for _, word := range []string{"panic:", "DATA RACE", "fatal error:"} {
		if text := d.log.String(); strings.Contains(text, word) {
			d.t.violate("the daemon says %q: %s", word, text)
		}
	}
}

// logBuffer keeps what the daemon says, up to a limit.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write keeps the text.
func (b *logBuffer) Write(p []byte) (int, error) {
	const most = 1 << 20
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text.Len() < most {
		b.text.Write(p)
	}
	return len(p), nil
}

// String returns what was said.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// status is what the daemon says of itself. The types are those of the API, as far as they are needed.
type status struct {
	PID         int       `json:"pid"`
	Takeover    *takeover `json:"takeover"`
	Loops       int       `json:"loops"`
	Connections int       `json:"connections"`
	HeldKeys    int       `json:"held_keys"`
	Waiters     int       `json:"waiters"`
	Counters    struct {
		Commands []struct {
			Kind    string `json:"kind"`
			Outcome string `json:"outcome"`
			Count   int64  `json:"count"`
		} `json:"commands"`
		Disconnects    map[string]int64 `json:"disconnects"`
		Moves          int64            `json:"moves"`
		DeadlocksFound int64            `json:"deadlocks_found"`
	} `json:"counters"`
}

// outcomes are the answers by the words that the counters have for them.
var outcomes = map[string]string{
	"locked": locked, "timeout": timedOut, "unlocked": unlocked,
	"already_locked": alreadyLocked, "not_locked": notLocked, "not_owner": notOwner,
	"token": tokenIs, "named": named, "owned": owned,
}

// commands returns the number of commands by command and answer.
func (s *status) commands() map[string]int64 {
	counts := map[string]int64{}
	for _, c := range s.Counters.Commands {
		answer := outcomes[c.Outcome]
		if answer == "" {
			answer = c.Outcome
		}
		counts[c.Kind+" "+answer] += c.Count
	}
	return counts
}

// ends says how many connections ended, by the reasons that the daemon has for it.
func (s *status) ends() string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(s.Counters.Disconnects)) {
		if n := s.Counters.Disconnects[reason]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, reason))
		}
	}
	return strings.Join(all, ", ")
}

// errNoKey says that nobody holds a key.
var errNoKey = errors.New("nobody holds the key")

// get asks the admin interface.
func (d *daemon) get(path string, answer any) error {
	err := d.getOnce(path, answer)
	for deadline := time.Now().Add(patience); d.restarts && err != nil && !errors.Is(err, errNoKey); {
		if time.Now().After(deadline) || !d.running() {
			break
		}
		d.t.pause(2 * time.Millisecond)
		err = d.getOnce(path, answer)
	}
	return err
}

func (d *daemon) getOnce(path string, answer any) error {
	request, err := http.NewRequestWithContext(d.t.ctx, http.MethodGet, "http://localhost"+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := d.admin.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	switch response.StatusCode {
	case http.StatusOK:
		return json.NewDecoder(response.Body).Decode(answer)
	case http.StatusNotFound:
		return errNoKey
	}
	return fmt.Errorf("%s: %s", path, response.Status)
}

// ask asks for the status. It stops the case if the daemon does not answer.
func (l *lab) ask(s *status) {
	*s = status{}
	if err := l.daemon.get("/api/v1/status", s); err != nil {
		l.t.violate("the daemon does not say its status: %v", err)
		l.t.fatal("the daemon does not say its status: %w; log: %s", err, l.daemon.log.String())
	}
}

// awaitQueue returns when a key has as many waiters. It stops the case if that does not come.
func (l *lab) awaitQueue(key string, waiters int) { l.t.awaitQueueAt(l.daemon, key, waiters) }

// awaitQueueAt is awaitQueue for one of several daemons.
func (t *trial) awaitQueueAt(d *daemon, key string, waiters int) {
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); t.pause(time.Millisecond) {
		var k struct {
			Waiters int `json:"waiters"`
		}
		if last = d.get("/api/v1/keys/"+key, &k); last != nil {
			continue
		}
		if k.Waiters == waiters {
			return
		}
		last = fmt.Errorf("it has %d", k.Waiters)
	}
	t.fatal("key %s has not %d waiters within %s: %w", key, waiters, patience, last)
}
