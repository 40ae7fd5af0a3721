package server

import (
	"fmt"
	"testing"

	"dreadlock/proto"
)

// BenchmarkEvents is a lock and its unlock in the shard of the session's own loop, without sockets, with events and without.
// A command of a client that sends one at a time takes some five microseconds.
func BenchmarkEvents(b *testing.B) {
	for _, events := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			s := newSimWith(1, 0, 0, events)
			var clients []*session
			for i := range 50 {
				clients = append(clients, s.connect(fmt.Sprint(i), 0).session)
			}
			keys := make([][]byte, len(clients))
			for i := range keys {
				keys[i] = []byte(s.key(fmt.Sprint("key", i), 0))
			}
			sh := s.loops[0].worker.shard
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c, key := clients[i%50], keys[i%50]
				r := &c.request
				r.key, r.hash, r.owner, r.timeout, r.mayWait = key, s.server.seed.Hash(key), &c.owner, 0, true
				for _, kind := range []proto.Kind{proto.Lock, proto.Unlock} {
					r.kind = kind
					sh.execute(r)
				}
			}
		})
	}
}
