// Package lockmgr is the lock table of one loop: which owner holds which key, and who waits for it. It is a pure state
// machine. One operation goes in, an outcome and the grants it caused come out; there is no clock, no I/O, no goroutine
// and no mutex inside, so a test replays every run exactly.
//
//	hash ─► index ─► entry "a" ──owner──► Owner ──list──► all its entries
//	                   │
//	                   └─ first ─► Waiter ─► Waiter ─► Waiter ◄─ last
//
// An [Owner] holds keys of one table, a [Waiter] is its place in the queue of one key, and [Grants] is the list of the
// waiters that an operation made holders. All three live in the caller's memory and are linked into the table, which
// allocates nothing for them.
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
//	            Take    a           free        Released, whoever asks
//	            Take    free        free        NotHeld
//	grant       Unlock  a <- b c    b <- c      Released, and b is in the grants
//	            Take    a <- b c    b <- c      the same
//	cancel      Cancel  a <- b c    a <- c      true; false if b was not queued
//	close       Close   a <- b c    b <- c      for each key of a: release or grant
//
// CloseSome is Close in steps. Between the first and the last the owner is closed, and its keys are nobody's: "(a)".
//
//	acquire     Lock    (a)         b           Granted, when b asks
//	            Lock    (a) <- b    (a) <- b c  Queued, or Busy and no change
//	release     Unlock  (a)         (a)         NotHeld; NotOwner if somebody waits
//	            Take    (a)         (a)         NotHeld
//	grant       Take    (a) <- b    b           Released, and b is in the grants
//
// In a table with a delay, from SetDelay, the keys of a closed owner rest before they go on: "(a)~" until the delay has
// passed, and "(a)" from then on. "(?)~" are those of the unknown owner, who may have held them before the table was made.
//
//	close       CloseSome   a <- b      (a)~ <- b     once, at its end
//	acquire     Lock        (a)~        (a)~ <- b     Queued, or Busy and no change
//	            Lock        free        (?)~ <- b     Queued while the table is new, or Busy and no change
//	release     Unlock      (a)~ <- b   (a)~ <- b     NotHeld, whoever asks
//	cancel      Cancel      (a)~ <- b   (a)~          true
//	            Cancel      (?)~ <- b   free          true
//
// # Guarantees
//
//   - A key has an entry exactly while it is held or rests. A key with waiters
//     has a holder, or had one.
//   - A key whose holder has closed goes to nobody before the delay has passed
//     since; nor does any key before it has passed since the time 0.
//   - A walk over the keys in small steps visits every key that is held, or
//     rests, from its beginning to its end, whatever the table does in between.
//   - The waiters of a key are granted it in the order in which they asked.
//   - How long the oldest grant and the oldest wait have lasted is known at any time.
//   - Every grant has a token. Of two grants of a table the later one has the
//     greater token.
//   - An Observer is told of every grant, and of its one end.
//   - When an operation returns, the waiters in the grants hold their keys
//     already: the caller only has to tell them.
//   - The cost of an operation does not depend on the number of waiters or keys,
//     except that Close does constant work for each key that its owner holds, and
//     CloseSome for a given number of them.
//   - What a table knows can be made again in others: see [Table.Restore].
//   - The table allocates nothing in the steady state, and gives memory back when
//     keys are released. It knows what the held keys cost: Size.
//   - Any key of any length is valid. A broken invariant panics and names the
//     values.
//
// # Callers
//
// A table and everything linked into it belong to one loop, and only that loop calls any of it. Only [Seed] is safe from
// any goroutine.
//
// Read table.go first, then queue.go and owner.go; index.go finds the entries, entry.go stores them, size.go says
// what they cost, age.go knows the oldest, view.go shows them, restore.go makes them again.
package lockmgr
