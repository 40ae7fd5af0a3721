package server

import "sync/atomic"

// The memory of the whole daemon has a limit, --max-memory. What counts is what clients make it take: keys with their share
// of the index, connections with their waiter, their socket and TLS, input that is not parsed yet, answers that are not read.
//
//	loop 0: table + sessions + buffers ─► account ─┐
//	loop 1: table + sessions + buffers ─► account ─┼─ in chunks ─► budget ─► level ─► each loop: throttle
//	  ...                                          ┘                  └─► keeper, a goroutine
//
// Each loop counts for itself, in plain numbers, and looks at their sum at the end of a turn. It reserves what it uses from the
// budget of all, in chunks and in advance, so that commands share nothing between loops.
//
// From the level follows what is held back, so that what can grow is bounded and what frees memory goes on:
//
//	tight   at 3/4 of the limit. Nobody reads ahead: a session with a command under way is not read, and one that has answers to
//	        read executes nothing. What it has is kept, and executed in its turn.
//	full    at the limit. Locks that would be granted or queued are answered "e out of memory", and new connections refused.
//	        Unlocks and whatever else frees memory work as always.
//	over    at 17/16: many clients send at the same moment, or hold back what they should read. All are read in sips, in turns,
//	        so that no read adds more than a client may send in one command.
//
// A session that is not read has a command under way, which goes on without being read, or has answers to read. So nobody who
// could free memory by a command waits for memory, at no level: there is no deadlock, and no order in which to let go on. Its
// end is seen at every level. Nothing that is held is lost, and nobody who waits is dropped. Each level ends a little below
// where it began, and the loops are told by the keeper.

// level is how scarce memory is.
type level int32

const (
	roomy level = iota
	tight
	full
	over
)

// marks say at which use of the memory, in 32nds of the limit, a level begins, and below which it ends.
var marks = [...]struct{ begin, end int64 }{
	tight: {24, 20},
	full:  {32, 30},
	over:  {34, 33},
}

const (
	// minMaxMemory is the smallest limit in bytes: below, the chunks that loops have reserved would matter.
	minMaxMemory = 4 << 20

	// maxChunk bounds what a loop reserves at a time, in bytes. All loops together reserve at most an eighth of the limit in
	// advance.
	maxChunk     = 64 << 10
	chunkPart    = 32 // of the limit, for all loops together
	chunksAtEase = 2  // that a loop has reserved and does not use

	// connectionSize is what an idle connection takes, in bytes: about 1.5 KiB in the process, and 1.5 in the kernel for its
	// socket and what watches it. A cgroup pays for both.
	connectionSize = 4 << 10
)

// budget is the memory of the whole server. It is safe from any goroutine.
type budget struct {
	limit int64
	chunk int64

	reserved atomic.Int64
	level    atomic.Int32
	peak     atomic.Int64  // the most that was reserved since memory was last given back to the system
	changed  chan struct{} // one token, for the keeper: the level is another, or memory can be given back
}

func newBudget(limit int64, loops int) *budget {
	return &budget{
		limit:   limit,
		chunk:   min(limit/chunkPart/int64(loops), maxChunk),
		changed: make(chan struct{}, 1),
	}
}

// now returns the level.
func (b *budget) now() level { return level(b.level.Load()) }

// reserve changes what is reserved.
func (b *budget) reserve(bytes int64) {
	used := b.reserved.Add(bytes)
	for peak := b.peak.Load(); used > peak && !b.peak.CompareAndSwap(peak, used); peak = b.peak.Load() {
	}
	if b.settle() || b.peak.Load()-used >= minGiveBack {
		b.notify()
	}
}

// settle brings the level up to date and reports whether it has changed.
func (b *budget) settle() (changed bool) {
	for {
		was := b.now()
		next := b.levelFrom(was, b.reserved.Load())
		if next == was {
			return changed
		}
		changed = b.level.CompareAndSwap(int32(was), int32(next)) || changed
	}
}

// levelFrom returns the level at a use of memory that follows on another level.
func (b *budget) levelFrom(was level, used int64) level {
	next := was
	for next < over && used >= b.limit/32*marks[next+1].begin {
		next++
	}
	for next > roomy && used < b.limit/32*marks[next].end {
		next--
	}
	return next
}

func (b *budget) notify() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// account is what one loop has of the budget. It belongs to the loop.
type account struct {
	budget   *budget
	reserved int64
}

// settle has the loop use that much.
func (a *account) settle(used int64) {
	if spare := a.reserved - used; spare < 0 || spare > chunksAtEase*a.budget.chunk {
		want := used + a.budget.chunk
		a.budget.reserve(want - a.reserved)
		a.reserved = want
	}
}

// memory returns what the clients of the loop make it take, in bytes. Up to an eighth of the limit, the loop may take more to
// find those who have ended: see [search].
func (w *worker) memory() int64 {
	size := w.shard.table.Size()
	if w.shard.lines != nil {
		size += w.shard.lines.size
	}
	return size + w.roster.buffered - w.roster.search.readOn + int64(w.roster.sessions.len())*connectionSize + w.loop.Memory()
}
