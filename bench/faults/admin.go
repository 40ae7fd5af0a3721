package faults

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	adminAddress = "127.0.0.1:7001" // on the daemon's host
	healthWithin = time.Second
	walksWithin  = 5 * time.Millisecond
)

func adminCases() []*Case {
	health := "/healthz answers a newcomer within " + seconds(healthWithin)
	return []*Case{{
		Name:    "admin-idle",
		Fault:   "200 idle keep-alive connections to the admin interface",
		Promise: health,
		run:     func(t *trial) string { return testAdminIdle(t, 200) },
	}, {
		Name:    "admin-slow",
		Fault:   "1,500 admin clients that send a byte of their header a second",
		Promise: health,
		run:     func(t *trial) string { return testAdminSlow(t, 1500) },
	}, {
		Name:    "admin-walks",
		Fault:   "8 admin clients that list 200,000 keys without a pause",
		Promise: "99 % of the commands take " + milliseconds(walksWithin),
		run:     func(t *trial) string { return testAdminWalks(t, 8, 200_000) },
		alone:   true,
	}}
}

// dialAdmin connects to the admin interface by TCP.
func (l *lab) dialAdmin(ctx context.Context) (net.Conn, error) {
	return dialOn(ctx, l.host, adminAddress)
}

// healthy asks for the health on new connections for a while, as an orchestrator does, and returns how long the slowest answer
// took.
func (l *lab) healthy(times int) string {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dialAdmin(ctx) },
	}}
	var worst time.Duration
	for range times {
		request, err := http.NewRequestWithContext(l.t.ctx, http.MethodGet, "http://localhost/healthz", http.NoBody)
		l.t.must(err)
		began := time.Now()
		response, err := client.Do(request)
		took := time.Since(began)
		worst = max(worst, took)
		switch {
		case err != nil:
			l.t.violate("/healthz after %s: %v", seconds(took), err)
			return "no answer within " + seconds(took)
		case response.StatusCode != http.StatusOK:
			l.t.violate("/healthz: %s", response.Status)
		case took > healthWithin:
			l.t.violate("/healthz answered after %s", seconds(took))
		}
		_ = response.Body.Close()
		l.t.pause(100 * time.Millisecond)
	}
	return "slowest answer " + milliseconds(worst)
}

// testAdminIdle has clients that have asked once and keep their connections.
func testAdminIdle(t *trial, clients int) string {
	l := t.newLab(0, "--admin", adminAddress)
	ld := l.startLoad(bystanders())
	for range clients {
		conn, err := l.dialAdmin(t.ctx)
		if err != nil {
			continue // refused: that is allowed
		}
		t.cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n") // it may be refused as well
	}
	figure := l.healthy(20)
	ld.stop()
	return figure
}

// testAdminSlow has clients that never come to the end of their request.
func testAdminSlow(t *trial, clients int) string {
	l := t.newLab(0, "--admin", adminAddress)
	ld := l.startLoad(bystanders())
	ctx, cancel := context.WithCancel(t.ctx)
	var running sync.WaitGroup
	for range clients {
		conn, err := l.dialAdmin(t.ctx)
		if err != nil {
			continue // refused: that is allowed
		}
		t.cleanup(func() { _ = conn.Close() })
		running.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			const header = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: yes\r\n"
			for i := range header {
				if _, err := conn.Write([]byte{header[i]}); err != nil {
					return // it has lost its patience
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	figure := l.healthy(20)
	cancel()
	running.Wait()
	ld.stop()
	return figure
}

// testAdminWalks has clients list a large table, page by page, while another one locks and unlocks.
func testAdminWalks(t *trial, walkers, keys int) string {
	l := t.newLabBy(politely, 0, "--loops", "2", "--admin", adminAddress)
	l.unrecorded = true
	const each = 50_000 // less than a connection may hold
	for i := range keys / each {
		conn, err := l.near(t.ctx)
		t.must(err)
		t.cleanup(func() { _ = conn.Close() })
		l.hoard(conn, fmt.Sprintf("walk%dx", i), each)
		defer conn.Close() //nolint:errcheck // its end releases the keys
	}
	ctx, cancel := context.WithCancel(t.ctx)
	var running sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: walkers,
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dialAdmin(ctx) },
	}}
	for range walkers {
		running.Go(func() {
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/v1/keys?order=wait&limit=1000", http.NoBody)
				if err != nil {
					return
				}
				response, err := client.Do(request)
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	}
	p := l.startProbe()
	t.pause(3 * time.Second)
	p.stop()
	cancel()
	running.Wait()
	client.CloseIdleConnections()
	return p.atMost(t, walksWithin, 0.99)
}
