package bench

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// What our daemon reports about itself, outside the protocol.

// adminClient talks to daemons on this machine. It ignores a proxy that the environment names.
var adminClient = &http.Client{Transport: &http.Transport{}}

// waitersOf returns a function that asks the admin interface at an address for the number of connections that wait for a
// key. The key must be held.
func waitersOf(address string) func(ctx context.Context, key string) (int, error) {
	return func(ctx context.Context, key string) (int, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/keys/"+key+"?queue=1", http.NoBody)
		if err != nil {
			return 0, err
		}
		response, err := adminClient.Do(request)
		if err != nil {
			return 0, fmt.Errorf("ask for the waiters of a key: %w", err)
		}
		defer response.Body.Close() //nolint:errcheck // it was only read
		var answer struct {
			Error   string `json:"error"`
			Waiters int    `json:"waiters"`
		}
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return 0, fmt.Errorf("ask for the waiters of a key: %w", err)
		}
		if response.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("ask for the waiters of a key: %s: %s", response.Status, answer.Error)
		}
		return answer.Waiters, nil
	}
}

// askAllocated asks our daemon for the number of objects that it has allocated. The question is a signal, the answer a
// line in its log.
func (s *Server) askAllocated(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	mark := s.stderr.end()
	if err := s.signal(syscall.SIGUSR1); err != nil {
		return 0, fmt.Errorf("ask %s for its status: %w", s.Name, err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if n, ok := allocatedIn(s.stderr.since(mark)); ok {
			return n, nil
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return 0, s.Ended()
		case <-ctx.Done():
			return 0, fmt.Errorf("ask %s for its status: %w", s.Name, ctx.Err())
		}
	}
}

// allocatedIn finds the status in lines of the daemon's log.
func allocatedIn(lines string) (objects int64, ok bool) {
	for line := range strings.Lines(lines) {
		var status struct {
			Message string `json:"message"`
			Objects int64  `json:"allocated_objects"`
		}
		if json.Unmarshal([]byte(line), &status) == nil && status.Message == "status" {
			return status.Objects, true
		}
	}
	return 0, false
}

// Program returns the program of our daemon, which is built if need be.
func (ps *Peers) Program(ctx context.Context) (string, error) { return ps.daemon(ctx, nil) }

// daemon returns the program of our daemon or of a variant of it.
func (ps *Peers) daemon(ctx context.Context, v *Variant) (string, error) {
	if v != nil && v.Program != "" {
		return v.Program, nil
	}
	if ps.Daemon != "" {
		return ps.Daemon, nil
	}
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "dreadlock"); isProgram(beside) {
			ps.Daemon = beside
			return beside, nil
		}
	}
	dir, err := ps.directory()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "dreadlock")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "dreadlock/cmd/dreadlock")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: dreadlock is not next to this program and cannot be built here: %w\n%s", ErrNotInstalled, err, out)
	}
	ps.Daemon = program
	return program, nil
}

// listen returns the options that make a daemon listen at the address of the target and at an admin address, which it puts into
// the target. For another way it changes how the target is reached.
func (ps *Peers) listen(ctx context.Context, way string, t *Target) (options []string, err error) {
	adminPort, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	t.admin = net.JoinHostPort("127.0.0.1", adminPort)
	listen := t.Address
	switch way {
	case overTLS:
		if err := ps.certify(); err != nil {
			return nil, err
		}
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ps.certs.trusted, ServerName: "127.0.0.1"}
		listen = "tls://" + t.Address
		options = []string{"--tls-cert", ps.certs.certFile, "--tls-key", ps.certs.keyFile}
	case overUnix:
		dir, err := ps.directory()
		if err != nil {
			return nil, err
		}
		t.Network, t.Address = "unix", filepath.Join(dir, portOf(t.Address)+".sock") // no other daemon has the port
		listen = "unix://" + t.Address
	case inFleet:
		if options, err = ps.fleetOptions(ctx, portOf(t.Address)); err != nil {
			return nil, err
		}
	}
	return append(options, "--listen", listen, "--admin=", "--admin", t.admin), nil // and no admin socket in /run
}

// certify makes a certificate for all daemons that need one.
func (ps *Peers) certify() error {
	if ps.certs != nil {
		return nil
	}
	dir, err := ps.directory()
	if err != nil {
		return err
	}
	ps.certs, err = newCertificate(dir)
	return err
}
