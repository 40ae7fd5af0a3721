package server

// placed is a member of a bag. It is in one bag at most.
type placed interface {
	// place returns where the member keeps its place in the bag: counted from 1, and 0 while it is in none.
	place() *int32
}

// bag is a set in no order. Its members know their places in it, so that to add and to remove one takes constant time, and
// a walk may go on while others come and go. The zero value is empty.
type bag[T placed] struct {
	members []T
}

func (b *bag[T]) len() int { return len(b.members) }

// add adds m, which must be in no bag.
func (b *bag[T]) add(m T) {
	b.members = append(b.members, m)
	*m.place() = int32(len(b.members))
}

// remove removes m and reports whether it was in the bag. The last member takes its place.
func (b *bag[T]) remove(m T) bool {
	at := *m.place()
	if at == 0 {
		return false
	}
	last := len(b.members) - 1
	moved := b.members[last]
	b.members[at-1] = moved
	*moved.place() = at
	*m.place() = 0 // also if it was the last itself
	var none T
	b.members[last] = none
	b.members = b.members[:last]
	return true
}

// bagWalk is how far a walk over a bag has come. The zero value is the beginning.
//
// A walk goes from the last place to the first, and visits every member that is in the bag from its beginning to its end:
// one that takes the place of another comes from the end, where the walk has been. For the same reason a member may be
// visited twice.
type bagWalk struct {
	begun bool
	next  int // places above have been visited
}

// walk visits at most n members, or fewer if visit returns false, and reports whether there are more to visit. visit may
// change the bag.
func (b *bag[T]) walk(w *bagWalk, n int, visit func(T) bool) (more bool) {
	if !w.begun {
		w.begun, w.next = true, len(b.members)
	}
	for range n {
		if w.next = min(w.next, len(b.members)); w.next == 0 {
			break
		}
		w.next--
		if !visit(b.members[w.next]) {
			break
		}
	}
	return w.next > 0
}
