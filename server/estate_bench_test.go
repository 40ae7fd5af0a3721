package server

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"dreadlock/reactor"
)

// newCrowdedSim returns a sim with so many clients: of ten four hold a key, and four wait for one of these.
func newCrowdedSim(tb testing.TB, loops, clients int) *sim {
	s := newSimOf(1<<30, func(cfg *Config) { cfg.Loops, cfg.MaxConnections, cfg.Events = loops, clients, 1000 })
	for i := range clients {
		c := s.connect(fmt.Sprintf("c%d", i), i%loops)
		c.send("name worker" + fmt.Sprint(i) + "\r\n")
		if i%10 < 4 {
			c.send(fmt.Sprintf("lock key%d 0\r\n", i))
		}
	}
	s.settle()
	for i, c := range s.clients {
		if i%10 >= 4 && i%10 < 8 {
			c.send(fmt.Sprintf("lock key%d 100000\r\n", i-4))
		}
	}
	s.settle()
	if err := s.checkQuiet(); err != nil {
		tb.Fatal(err)
	}
	return s
}

// leaveAll has all loops leave, at the same time.
func (s *sim) leaveAll() (left []*loopEstate, err error) {
	left = make([]*loopEstate, len(s.loops))
	var all sync.WaitGroup
	for i, l := range s.loops {
		all.Go(func() { left[i], err = l.worker.leave() })
	}
	all.Wait()
	return left, err
}

// BenchmarkEstate is the part of the pause that goes by the state: what sockets and system calls take comes on top.
func BenchmarkEstate(b *testing.B) {
	for _, clients := range []int{1000, 15_000} {
		s := newCrowdedSim(b, 2, clients)
		var file bytes.Buffer
		b.Run(fmt.Sprintf("leave/clients=%d", clients), func(b *testing.B) {
			for b.Loop() {
				left, err := s.leaveAll()
				if err != nil {
					b.Fatal(err)
				}
				file.Reset()
				if err := s.server.newEstate(left, nil).write(&file); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(file.Len())/float64(clients), "B/client")
		})
		b.Run(fmt.Sprintf("inherit/clients=%d", clients), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				fresh := newHeirSim(s.server.cfg)
				fresh.now = s.now
				i := fresh.benchInheritance(clients)
				b.StartTimer()
				began := time.Now()
				e, parts, err := readEstate(file.Bytes())
				if err != nil {
					b.Fatal(err)
				}
				decoded := time.Now()
				if _, err := fresh.server.restore(e, parts, i); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(decoded.Sub(began).Microseconds())/1000, "decode-ms")
			}
		})
	}
}

// newHeirSim returns a sim that is about to take over.
func newHeirSim(cfg Config) *sim {
	s := &sim{}
	srv := newSimServer(cfg, 1<<30)
	srv.inherits = true
	s.serve(srv)
	return s
}

// benchInheritance is one of connections without sockets.
func (s *sim) benchInheritance(clients int) inheritance {
	i := inheritance{carried: clients, next: func() (int, error) { return 0, nil }, room: make([]int, len(s.loops))}
	for loop := range i.room {
		i.room[loop] = clients/len(s.loops)*5/4 + 128
	}
	i.adopt = func(_ *shard, client reactor.Client, _ int, _ reactor.ConnState) error {
		restored := client.(*session)
		restored.conn = &simClient{session: restored, open: true}
		return nil
	}
	i.each = func(f func(sh *shard)) error {
		var all sync.WaitGroup
		for _, l := range s.loops {
			all.Go(func() { f(l.worker.shard) })
		}
		all.Wait()
		return nil
	}
	return i
}
