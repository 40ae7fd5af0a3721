package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"dreadlock/bench"
)

// serverMutex is the name of the Mutexes of etcd in tables.
const serverMutex = "mutex"

// mutexCommand is the competitor of a fleet: clients that lock with etcd alone, as its documentation says: a session each, and a
// [concurrency.Mutex] for each key. All of them are in this one process, and those of one member share a connection, which costs less
// than clients that are processes of their own. It prints a [bench.Result].
type mutexCommand struct {
	Endpoints []string      `required:"" help:"URLs of the members. The clients are spread over them."`
	Kind      bench.Kind    `required:"" help:"Workload: uncontended, contended, groups or fresh."`
	Clients   int           `required:"" help:"Number of clients."`
	Keys      int           `help:"Number of keys that the clients share."`
	Warmup    time.Duration `help:"Time before the measurement."`
	Window    time.Duration `required:"" help:"Length of the measurement."`
}

// sessionTTL is that of the clients' sessions, in seconds: the default of etcd.
const sessionTTL = 60

// Run measures.
func (c *mutexCommand) Run(ctx context.Context) error {
	m := &mutexes{
		workload:  bench.Workload{Kind: c.Kind, Connections: c.Clients, Keys: c.Keys, Warmup: c.Warmup, Window: c.Window},
		prefix:    "/mutex/" + strconv.FormatUint(rand.Uint64(), 36) + "/",
		latency:   hdrhistogram.New(int64(time.Microsecond), int64(100*time.Second), 3),
		endpoints: c.Endpoints,
	}
	if err := m.workload.Validate(); err != nil {
		return err
	}
	defer m.close()
	if err := m.connect(ctx); err != nil {
		return err
	}
	result, err := m.measure(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// mutexes are clients that lock keys with etcd alone.
type mutexes struct {
	workload  bench.Workload
	prefix    string // of all keys
	endpoints []string
	clients   []*clientv3.Client     // one for each endpoint
	sessions  []*concurrency.Session // one for each client of the workload

	operations atomic.Int64 // that have been answered

	mu      sync.Mutex
	latency *hdrhistogram.Histogram // nothing is recorded outside of the window
	records bool
}

// connect makes all sessions.
func (m *mutexes) connect(ctx context.Context) error {
	for _, endpoint := range m.endpoints {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		m.clients = append(m.clients, client)
	}
	m.sessions = make([]*concurrency.Session, m.workload.Connections)
	group, ctx := errgroup.WithContext(ctx)
	for i := range m.sessions {
		group.Go(func() error {
			client := m.clients[i%len(m.clients)]
			lease, err := client.Grant(ctx, sessionTTL)
			if err != nil {
				return err
			}
			m.sessions[i], err = concurrency.NewSession(client, concurrency.WithLease(lease.ID))
			return err
		})
	}
	return group.Wait()
}

// close ends the sessions and the connections.
func (m *mutexes) close() {
	var closing sync.WaitGroup
	for _, s := range m.sessions {
		if s != nil {
			closing.Go(func() { _ = s.Close() }) // the lease would end by itself
		}
	}
	closing.Wait()
	for _, client := range m.clients {
		_ = client.Close()
	}
}

// measure runs the load.
func (m *mutexes) measure(ctx context.Context) (*bench.Result, error) {
	load, stop := context.WithCancel(ctx)
	defer stop()
	group, load := errgroup.WithContext(load)
	started := time.Now()
	for i := range m.sessions {
		group.Go(func() error {
			if err := m.run(load, i); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("client %d: %w", i, err)
			}
			return nil
		})
	}
	pause(load, m.workload.Warmup)
	m.record(true)
	begin, before := time.Now(), m.operations.Load()
	pause(load, m.workload.Window)
	elapsed, n := time.Since(begin), m.operations.Load()-before
	m.record(false)
	stop()
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	result := &bench.Result{Workload: m.workload, Server: serverMutex, Kind: serverMutex, Started: started, Elapsed: elapsed, Operations: n}
	result.Answered, result.Throughput = m.operations.Load(), float64(n)/elapsed.Seconds()
	result.Latency = bench.NewLatency(m.latency)
	return result, nil
}

// pause waits for a time, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (m *mutexes) record(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = on
}

// run locks and unlocks keys until ctx is done, and returns what has ended it.
func (m *mutexes) run(ctx context.Context, client int) error {
	made := make(map[string]*concurrency.Mutex)
	for job := 0; ; job++ {
		name := m.key(client, job)
		mutex := made[name]
		if mutex == nil {
			mutex = concurrency.NewMutex(m.sessions[client], m.prefix+name)
			if m.workload.Kind != bench.Fresh {
				made[name] = mutex
			}
		}
		if err := m.timed(func() error { return mutex.Lock(ctx) }); err != nil {
			return err
		}
		if err := m.timed(func() error { return mutex.Unlock(ctx) }); err != nil {
			return err
		}
	}
}

// key returns the key of a job of a client: the one that the generator of the workload would choose.
func (m *mutexes) key(client, job int) string {
	switch m.workload.Kind {
	case bench.Contended:
		return strconv.Itoa(rand.IntN(m.workload.Keys))
	case bench.Groups:
		return strconv.Itoa(client * m.workload.Keys / m.workload.Connections)
	case bench.Fresh:
		return strconv.Itoa(client) + "." + strconv.Itoa(job)
	}
	return strconv.Itoa(client)
}

// timed runs an operation, and counts it with its time.
func (m *mutexes) timed(operation func() error) error {
	began := time.Now()
	if err := operation(); err != nil {
		return err
	}
	m.operations.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records {
		_ = m.latency.RecordValue(int64(max(time.Since(began), time.Microsecond))) // it fails for 100 s and more, which no window has
	}
	return nil
}
