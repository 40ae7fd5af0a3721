package fleettest

import (
	"testing"
	"time"
)

// logWorld is a [Log] in which everything happens as soon as it can.
type logWorld struct {
	t     *testing.T
	log   *Log
	links []*Link
	idle  int // steps in which nothing has happened
	left  map[*Link]bool

	suspended map[*Link]bool
}

func TestConformance(t *testing.T) {
	Conform(t, func(t *testing.T, members []*Recorder) World {
		now := time.Second
		w := &logWorld{t: t, log: NewLog(10*time.Second, 2*time.Second, func() time.Duration { return now }), left: map[*Link]bool{}, suspended: map[*Link]bool{}}
		for _, m := range members {
			w.links = append(w.links, &Link{Log: w.log, Member: m})
		}
		return w
	})
}

func (w *logWorld) Step() {
	w.idle++
	for _, k := range w.links {
		switch {
		case w.left[k] || w.suspended[k]:
			continue
		case !k.Connected():
			k.Connect()
		case k.Unseen() > 0:
			k.Watch(k.Unseen())
		case k.MustLose() || !w.log.Lives(k.Lease()):
			k.Lose(true)
		case k.Queued() > 0:
			k.Write(100, false)
		default:
			continue
		}
		w.idle = 0
	}
	if w.idle > 10 {
		w.t.Fatal("nothing happens any more")
	}
}

func (w *logWorld) Revoke(lease int64) { w.log.Revoke(lease) }

func (w *logWorld) Leave(member int) {
	w.left[w.links[member]] = true
	w.links[member].Lose(true)
}

func (w *logWorld) Compact() { w.log.Compact() }

func (w *logWorld) Suspend(member int) time.Duration {
	k := w.links[member]
	w.suspended[k] = true
	return k.Until()
}

func (w *logWorld) Resume(member int) { delete(w.suspended, w.links[member]) }

func (w *logWorld) Bequeaths(member int) bool {
	_, err := w.links[member].Legacy()
	return err == nil
}

func (w *logWorld) TakeOver(member int) {
	k := w.links[member]
	next := &Link{Log: w.log, Member: k.Member}
	l, err := k.Legacy()
	if err == nil {
		l, err = Carry(l)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	k.Member.(*Recorder).GoOn(next.Inherit(l))
	k.Yield(next)
	w.links[member] = next
}
