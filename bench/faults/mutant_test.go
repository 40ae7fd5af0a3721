package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// mutant is a small lock server with a fault.
type mutant struct {
	mu     sync.Mutex
	holder map[string]net.Conn
	freed  map[string]chan struct{} // closed when the key is given up

	grantsAll   bool // also a key that is held
	early       bool // waits time out after half their time
	forgets     bool // answers an unlock and keeps the key
	skips       bool // leaves one answer in a hundred out
	disconnects bool // ends one connection in a hundred commands
}

// serve serves until the listener is closed.
func (m *mutant) serve(ln net.Listener) {
	m.holder, m.freed = map[string]net.Conn{}, map[string]chan struct{}{}
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go m.talk(conn)
	}
}

func (m *mutant) talk(conn net.Conn) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for key, holder := range m.holder {
			if holder == conn {
				m.free(key)
			}
		}
		conn.Close()
	}()
	lines, gone := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(gone)
		in := bufio.NewScanner(conn)
		for in.Scan() {
			lines <- in.Text()
		}
	}()
	for n := 1; ; n++ {
		var line string
		select {
		case line = <-lines:
		case <-gone:
			if len(lines) == 0 {
				return
			}
			line = <-lines
		}
		words := append(strings.Fields(line), "0")
		var answer string
		if words[0] == "lock" {
			ms, _ := time.ParseDuration(words[2] + "ms")
			answer = m.lock(conn, gone, words[1], ms)
		} else {
			answer = m.unlock(conn, words[1])
		}
		switch {
		case answer == "":
			return
		case m.skips && n%100 == 0:
		case m.disconnects && n%100 == 0:
			return
		default:
			if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
				return
			}
		}
	}
}

func (m *mutant) free(key string) {
	delete(m.holder, key)
	close(m.freed[key])
}

func (m *mutant) lock(conn net.Conn, gone <-chan struct{}, key string, timeout time.Duration) string {
	if m.early {
		timeout /= 2
	}
	out := time.After(timeout)
	for {
		m.mu.Lock()
		holder := m.holder[key]
		if holder == nil || m.grantsAll && holder != conn {
			if holder == nil {
				m.freed[key] = make(chan struct{})
			}
			m.holder[key] = conn
			m.mu.Unlock()
			return locked
		}
		freed := m.freed[key]
		m.mu.Unlock()
		if holder == conn {
			return alreadyLocked
		}
		if timeout == 0 {
			return timedOut
		}
		select {
		case <-freed:
		case <-gone:
			return ""
		case <-out:
			return timedOut
		}
	}
}

func (m *mutant) unlock(conn net.Conn, key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.holder[key] {
	case conn:
		if !m.forgets {
			m.free(key)
		}
		return unlocked
	case nil:
		return notLocked
	}
	return notOwner
}

// TestMutants lets clients compete at a server that is sound, and at ones that are not: the check finds each fault, and nothing
// in the sound one.
func TestMutants(t *testing.T) {
	for _, tc := range []struct {
		name   string
		mutant *mutant
		want   string // a part of a violation
	}{
		{"sound", &mutant{}, ""},
		{"two holders", &mutant{grantsAll: true}, "held it at the same time"},
		{"early timeouts", &mutant{early: true}, "early"},
		{"keeps keys", &mutant{forgets: true}, "and the session does not hold it"},
		{"leaves answers out", &mutant{skips: true}, "was not answered"},
		{"ends connections", &mutant{disconnects: true}, "ended its connection for no reason"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			m := tc.mutant
			go m.serve(ln)
			got := strings.Join(competeAt(t, ln.Addr().String()), "\n")
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("want a violation with %q, got %.500q", tc.want, got)
			}
		})
	}
}

// errNoAdmin says that the server has no admin interface.
var errNoAdmin = errors.New("no admin interface")

// competeAt lets clients compete at a server for a while, and returns the violations in what they saw.
func competeAt(t *testing.T, address string) []string {
	lab := &lab{history: &history{}, t: &trial{ctx: t.Context(), options: &Options{}}}
	lab.daemon = &daemon{t: lab.t, admin: &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errNoAdmin },
	}}}
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
	ended := make(chan struct{})
	go func() { // whose goroutine a trial may end
		defer close(ended)
		lab.competeFor(8, time.Second, []dialer{dial}, 4, 2*time.Second)
	}()
	<-ended
	if lab.t.err != nil {
		t.Fatal(lab.t.err)
	}
	return append(check(lab.history).violations, lab.t.violations...)
}

// TestEach: a part of a case that is stopped or violated is reported, and the case goes on.
func TestEach(t *testing.T) {
	out := runTrial(t.Context(), &Options{}, &Case{Name: "case", run: func(t *trial) string {
		t.each("stopped", func(t *trial) { t.fatal("it cannot go on") })
		t.each("panics", func(*trial) { panic("a fault of the suite") })
		t.each("violated", func(t *trial) {
			t.cleanup(func() { t.violate("found while cleaning up") })
			t.violate("a promise was not kept")
		})
		return "to the end"
	}})
	got := fmt.Sprintf("%q", out.Violations)
	for _, want := range []string{
		"stopped: it cannot go on", "panics: panic: a fault of the suite", "violated: a promise was not kept", "violated: found while cleaning up",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if out.Measured != "to the end" || !out.Failed() {
		t.Errorf("%+v", out)
	}
}

// TestSkip: a case that cannot be made is neither passed nor failed, and says why.
func TestSkip(t *testing.T) {
	out := runTrial(t.Context(), &Options{}, &Case{Name: "case", run: func(t *trial) string {
		t.skip("there is no such device")
		return ""
	}})
	if out.Failed() || !strings.Contains(out.Skipped, "no such device") || out.count() != "-" {
		t.Errorf("%+v", out)
	}
}

// TestChoose: cases are chosen by the beginning of their names, and an unknown one is an error that names the known ones.
func TestChoose(t *testing.T) {
	chosen, err := choose(Cases(), []string{"vanish-chain", "end-rst"})
	if err != nil || len(chosen) != 3 {
		t.Errorf("%d cases, %v; want 3", len(chosen), err)
	}
	if _, err := choose(Cases(), []string{"nonsense"}); !errors.Is(err, ErrCase) || !strings.Contains(err.Error(), "end-rst") {
		t.Errorf("got %v", err)
	}
	names := map[string]bool{}
	for _, c := range Cases() {
		if names[c.Name] || c.Fault == "" || c.Promise == "" {
			t.Errorf("case %q is there twice or says too little", c.Name)
		}
		names[c.Name] = true
	}
}
