package server

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"testing"
	"time"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
)

const benchClients = 50

// load is what each client of a benchmark does again and again: it writes a batch of commands and reads the answers.
type load struct {
	name    string
	batches func(client int) [][]byte // in turn
	answers [][]byte                  // to each batch
}

var loads = []load{
	{
		name:    "own",
		batches: func(client int) [][]byte { return lockAndUnlock("own"+strconv.Itoa(client), 1) },
		answers: [][]byte{proto.Locked.Append(nil), proto.Unlocked.Append(nil)},
	},
	{
		name:    "contended",
		batches: func(client int) [][]byte { return lockAndUnlock("shared"+strconv.Itoa(client%5), 1) },
		answers: [][]byte{proto.Locked.Append(nil), proto.Unlocked.Append(nil)},
	},
	{
		name: "pipelined",
		batches: func(client int) [][]byte {
			return [][]byte{bytes.Join(lockAndUnlock("own"+strconv.Itoa(client), pipelined), nil)}
		},
		answers: [][]byte{bytes.Repeat(proto.Unlocked.Append(proto.Locked.Append(nil)), pipelined)},
	},
}

// pipelined is the number of pairs in a batch.
const pipelined = 16

func lockAndUnlock(key string, pairs int) [][]byte {
	var batches [][]byte
	for range pairs {
		batches = append(batches, proto.AppendLock(nil, key, time.Minute), proto.AppendUnlock(nil, key))
	}
	return batches
}

// commands returns the number of commands in one round of all batches.
func (l *load) commands() int {
	n := 0
	for _, answer := range l.answers {
		n += bytes.Count(answer, []byte("\n"))
	}
	return n
}

// driver is one client of a load. Its rounds allocate nothing.
type driver struct {
	conn    net.Conn
	batches [][]byte
	answers [][]byte
	buf     []byte
}

func (d *driver) round() error {
	for i, batch := range d.batches {
		if _, err := d.conn.Write(batch); err != nil {
			return err
		}
		want := d.answers[i]
		for got := 0; got < len(want); {
			n, err := d.conn.Read(d.buf[:len(want)-got])
			if err != nil {
				return err
			}
			if !bytes.Equal(d.buf[:n], want[got:got+n]) {
				return fmt.Errorf("answer %q, want %q", d.buf[:n], want[got:got+n])
			}
			got += n
		}
	}
	return nil
}

// squad is the clients of a load, each on a goroutine of its own.
type squad struct {
	drivers []*driver
	rounds  []chan int
	done    sync.WaitGroup
	tb      testing.TB
}

func newSquad(tb testing.TB, d *daemon, l *load) *squad {
	f := &squad{tb: tb}
	for i := range benchClients {
		conn := d.dial().Conn()
		driver := &driver{conn: conn, batches: l.batches(i), answers: l.answers, buf: make([]byte, 4<<10)}
		rounds := make(chan int)
		f.drivers, f.rounds = append(f.drivers, driver), append(f.rounds, rounds)
		go func() {
			for n := range rounds {
				for range n {
					if err := driver.round(); err != nil {
						tb.Errorf("client %d: %v", i, err)
						break
					}
				}
				f.done.Done()
			}
		}()
		tb.Cleanup(func() { close(rounds) })
	}
	return f
}

// run has every client do n rounds.
func (f *squad) run(n int) {
	deadline := time.Now().Add(time.Minute + prototest.Patience)
	for _, d := range f.drivers {
		if err := d.conn.SetDeadline(deadline); err != nil {
			f.tb.Fatal(err)
		}
	}
	f.done.Add(len(f.drivers))
	for _, rounds := range f.rounds {
		rounds <- n
	}
	f.done.Wait()
}

// allocations returns the objects that the process has allocated. A collection first makes the count exact: each
// processor keeps some of it to itself.
func allocations() uint64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// BenchmarkServer measures commands from the client's write to the client's read, over the loopback and in one process:
// half of the work is the clients'. The allocations are the server's alone.
func BenchmarkServer(b *testing.B) {
	for _, l := range loads {
		for _, loops := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/loops=%d", l.name, loops), func(b *testing.B) {
				benchmark(b, startDaemon(b, func(c *Config) { c.Loops = loops }), &l)
			})
		}
	}
}

// BenchmarkFleet is BenchmarkServer for a daemon of a fleet that has the places for all keys.
func BenchmarkFleet(b *testing.B) {
	for _, l := range loads {
		for _, loops := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/loops=%d", l.name, loops), func(b *testing.B) {
				_, d, _ := fleetOf(b, 1, func(c *Config) { c.Loops = loops })
				benchmark(b, d[0], &l)
			})
		}
	}
}

func benchmark(b *testing.B, d *daemon, l *load) {
	f := newSquad(b, d, l)
	f.run(20)
	perRound := l.commands() * benchClients
	rounds := (b.N + perRound - 1) / perRound
	before := allocations()
	b.ResetTimer()
	f.run(rounds)
	b.StopTimer()
	commands := float64(rounds * perRound)
	b.ReportMetric(commands/b.Elapsed().Seconds(), "commands/s")
	b.ReportMetric(float64(allocations()-before)/commands, "allocs/command")
}

// TestAllocations holds the server to a tenth of an allocation per command, also in a fleet, for keys for which it has the places.
func TestAllocations(t *testing.T) {
	for _, l := range loads {
		for _, loops := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/loops=%d", l.name, loops), func(t *testing.T) {
				wantFewAllocations(t, startDaemon(t, func(c *Config) { c.Loops = loops }), &l)
			})
		}
		t.Run(l.name+"/fleet", func(t *testing.T) {
			_, d, _ := fleetOf(t, 1, nil)
			wantFewAllocations(t, d[0], &l)
		})
	}
}

func wantFewAllocations(t *testing.T, d *daemon, l *load) {
	const (
		most  = 0.1
		total = 20_000 // commands
	)
	f := newSquad(t, d, l)
	f.run(20) // what is allocated once per connection
	perRound := l.commands() * benchClients
	rounds := total / perRound
	before := allocations()
	f.run(rounds)
	per := float64(allocations()-before) / float64(rounds*perRound)
	t.Logf("%.4f allocations per command", per)
	if per > most {
		t.Errorf("%.3f allocations per command, want at most %g", per, most)
	}
}
