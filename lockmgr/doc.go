// Package lockmgr is the lock table of one loop: which owner holds which key, and who waits for it. It is a pure state
// machine. One operation goes in, an outcome and the grants it caused come out; there is no clock, no I/O, no goroutine
// and no mutex inside, so a test replays every run exactly.
//
//	hash ─► index ─► entry "a" ──owner──► Owner ──circle──► all its entries
//	                   │
//	                   └─ first ─► Waiter ─► Waiter ─► Waiter ◄─ last
//
// An [Owner] is what one session holds in one table, a [Waiter] is its place in the queue of one key, and [Grants] is
// the list of the waiters that an operation made holders. All three are memory of the caller, linked into the table:
// nothing is allocated for them.
//
// # Transitions
//
// A key is free (it has no entry), or held by one owner with a queue of waiters that may be empty. "a <- b c" reads:
// held by a, b and c wait, b is first.
//
//	transition  call    before      after       outcome
//	acquire     Lock    free        a           Granted
//	            Lock    a <- b      a <- b c    Queued, or Busy and no change
//	            Lock    a <- b      a <- b      AlreadyHeld, when a asks
//	release     Unlock  a           free        Released
//	            Unlock  a <- b      a <- b      NotOwner, when b asks
//	            Unlock  free        free        NotHeld
//	grant       Unlock  a <- b c    b <- c      Released, and b is in the grants
//	cancel      Cancel  a <- b c    a <- c      true; false if b was not queued
//	close       Close   a <- b c    b <- c      for each key of a: release or grant
//
// # Guarantees
//
//   - A key has an entry exactly while it is held. A key with waiters has a
//     holder.
//   - A walk over the keys in small steps misses none that stays, whatever the
//     table does in between.
//   - A key is granted strictly in the order in which it was asked for.
//   - Every grant has a token. Of two grants of a table the later one has the
//     greater token.
//   - When an operation returns, the waiters it put into the grants hold their
//     keys already: who reads the grants only spreads the news.
//   - No operation depends on the number of waiters or keys, but Close, which
//     does constant work for each key that its owner holds.
//   - The table allocates nothing in the steady state, and its memory goes back
//     when keys do.
//   - Any key of any length is good input. A broken invariant panics and names
//     the values.
//
// # Callers
//
// A table and all that is linked into it belong to one loop. Only that loop calls any of it; nothing but [Seed] is safe
// from any goroutine.
//
// Read table.go first, then queue.go and owner.go; index.go finds the entries, entry.go stores them, view.go shows them.
package lockmgr
