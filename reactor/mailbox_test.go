package reactor

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// parcel is a message with its place in the order of its sender.
type parcel struct {
	message Message // Body: the parcel
	from    int
	seq     int
}

func newParcels(from, n int) []parcel {
	parcels := make([]parcel, n)
	for i := range parcels {
		parcels[i].from, parcels[i].seq = from, i
		parcels[i].message.Body = &parcels[i]
	}
	return parcels
}

// TestMailbox has many senders push batches while one receiver sleeps until it is woken. Nothing is lost, each sender's
// order is kept, and there is one wake-up for each time that something lay in the empty mailbox.
func TestMailbox(t *testing.T) {
	const senders, each = 8, 5000
	var box mailbox
	wakes := make(chan struct{}, senders*each)
	var group sync.WaitGroup
	for from := range senders {
		group.Go(func() {
			parcels := newParcels(from, each)
			rng := rand.New(rand.NewPCG(1, uint64(from)))
			for len(parcels) > 0 {
				var b batch
				n := min(1+rng.IntN(8), len(parcels))
				for i := range parcels[:n] {
					b.add(&parcels[i].message)
				}
				parcels = parcels[n:]
				if box.push(&b) {
					wakes <- struct{}{}
				}
				if rng.IntN(16) == 0 {
					runtime.Gosched() // let the receiver find the mailbox empty
				}
			}
		})
	}
	var next [senders]int
	for received := 0; received < senders*each; {
		receive(t, wakes, "a wake-up was lost")
		m := box.take()
		if m == nil {
			t.Fatal("woken for nothing")
		}
		for ; m != nil; m = m.next {
			p := m.Body.(*parcel)
			if p.seq != next[p.from] {
				t.Fatalf("sender %d: message %d came where %d was expected", p.from, p.seq, next[p.from])
			}
			next[p.from]++
			received++
		}
	}
	group.Wait()
	if len(wakes) > 0 || box.take() != nil {
		t.Errorf("%d wake-ups or a message are left over", len(wakes))
	}
}

// TestMailboxWake goes through the wake-up rule step by step.
func TestMailboxWake(t *testing.T) {
	var box mailbox
	parcels := newParcels(0, 5)
	push := func(parcels ...parcel) bool {
		var b batch
		for i := range parcels {
			b.add(&parcels[i].message)
		}
		return box.push(&b)
	}
	if box.take() != nil {
		t.Error("a new mailbox is not empty")
	}
	if !push(parcels[0], parcels[1]) {
		t.Error("the first batch does not wake")
	}
	if push(parcels[2]) {
		t.Error("a batch behind another one wakes")
	}
	seq := 0
	for m := box.take(); m != nil; m = m.next {
		if got := m.Body.(*parcel).seq; got != seq {
			t.Errorf("message %d came where %d was expected", got, seq)
		}
		seq++
	}
	if seq != 3 {
		t.Errorf("%d messages came, want 3", seq)
	}
	if !push(parcels[3]) {
		t.Error("the first batch after the mailbox was taken does not wake")
	}
}

func TestMailboxAllocs(t *testing.T) {
	var box mailbox
	parcels := newParcels(0, 16)
	if n := testing.AllocsPerRun(1000, func() { pushTake(&box, parcels) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func pushTake(box *mailbox, parcels []parcel) {
	var b batch
	for i := range parcels {
		b.add(&parcels[i].message)
	}
	box.push(&b)
	for m := box.take(); m != nil; {
		m, m.next = m.next, nil
	}
}

// BenchmarkMailbox pushes one batch and takes it; an operation is one batch.
func BenchmarkMailbox(b *testing.B) {
	for _, size := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			var box mailbox
			parcels := newParcels(0, size)
			b.ReportAllocs()
			for b.Loop() {
				pushTake(&box, parcels)
			}
		})
	}
}

// BenchmarkMailboxContended has a sender on every processor and one receiver; an operation is one batch.
func BenchmarkMailboxContended(b *testing.B) {
	for _, size := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			var box mailbox
			wake, done := make(chan struct{}, 1), make(chan struct{})
			go func() {
				defer close(done)
				for range wake {
					for m := box.take(); m != nil; {
						next := m.next
						m.next = nil
						if load := m.Body.(*load); load.last == m {
							load.away.Store(false)
						}
						m = next
					}
				}
			}()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				loads := newLoads(size)
				for i := 0; pb.Next(); i++ {
					l := &loads[i%len(loads)]
					for l.away.Load() {
						runtime.Gosched()
					}
					l.away.Store(true)
					var batch batch
					for i := range l.messages {
						batch.add(&l.messages[i])
					}
					if box.push(&batch) {
						wake <- struct{}{}
					}
				}
			})
			close(wake)
			<-done
		})
	}
}

// load is a batch that a sender may use again when the receiver has seen its last message.
type load struct {
	messages []Message // Body: the load
	last     *Message
	away     atomic.Bool
}

func newLoads(size int) []load {
	loads := make([]load, 64)
	for i := range loads {
		l := &loads[i]
		l.messages = make([]Message, size)
		for j := range l.messages {
			l.messages[j].Body = l
		}
		l.last = &l.messages[size-1]
	}
	return loads
}
