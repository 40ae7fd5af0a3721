package proto

import "strings"

// state is where in a command the input ran out. Those between begin and done are made from the table of commands:
//
//	begin ─► keyword, a state for each of its beginnings ─SP─► before an argument ─► inside it ─┬─SP─► before the next
//	                                                                                            └─SP─► tail, or CR
type state uint8

const (
	begin   state = iota // between two commands
	invalid              // after a syntax error
	done                 // of a transition only: the command is complete
	firstMade
)

// The columns of the transition table: a byte's column is all that a state needs to know of it.
const (
	columnLetter = iota // the first of 26: the two cases of a letter share one
	columnDigit  = iota + 25
	columnMark
	columnSpace
	columnCR
	columnLF
	columnOther
	columns
)

// node is a state with what leads to others.
type node struct {
	next   [columns]state // invalid where a byte of the column cannot follow
	reason Reason         // why it cannot
	role   role           // of the argument that the bytes in this state belong to, 0 if they belong to none
	bytes  set            // that such an argument consists of
	max    uint           // its length
	kind   Kind           // of the command, once the keyword is known
}

// shortcut is what it takes to read the usual form of a command without going from state to state: the keyword as the low
// bytes of a little-endian word, and the states in which reading goes on where the command is not of that form.
type shortcut struct {
	word  uint64 // the keyword in lower case, and a space
	fold  uint64 // the bits that make its letters lower case
	mask  uint64 // the bits that it takes up
	size  uint
	kind  Kind
	timed bool // a number follows the argument

	beforeArg, inArg, beforeNumber, inNumber state
}

var (
	columnOf = makeColumns()

	// nodes has every state; a state is a byte, so that an index needs no check.
	nodes [256]node

	// shortcuts are found by the low five bits of the keyword's first letter. Of several keywords with the same first
	// letter the first in the table has it. The zero shortcut matches nothing.
	shortcuts [32]shortcut
)

func init() {
	last := done
	add := func(n node) state {
		last++
		nodes[last] = n
		return last
	}
	nodes[begin] = node{next: nowhere(), reason: WantKeyword}
	nodes[invalid] = node{next: nowhere()}
	for kind := Lock; int(kind) < NumKinds; kind++ {
		addCommand(kind, add)
	}
}

// addCommand adds the states of a kind, from the end to the beginning.
func addCommand(kind Kind, add func(node) state) {
	made := shortcut{kind: kind}
	afterCR := add(node{kind: kind, next: to(nowhere(), columnLF, done), reason: WantLF})
	tail := add(node{kind: kind, next: to(nowhere(), columnCR, afterCR), reason: WantEnd})
	nodes[tail].next[columnSpace] = tail

	following := tail
	arguments := commands[kind].arguments
	for i := len(arguments) - 1; i >= 0; i-- {
		a := arguments[i]
		inside := node{kind: kind, next: to(nowhere(), columnSpace, following), reason: a.more, role: a.role, bytes: a.bytes, max: uint(a.max)}
		if following == tail {
			inside.next[columnCR], inside.reason = afterCR, a.last
		}
		in := add(inside)
		before := add(node{kind: kind, next: nowhere(), reason: a.first})
		nodes[before].next[columnSpace] = before
		for c, column := range columnOf {
			if setOf[c]&a.bytes != 0 {
				nodes[in].next[column], nodes[before].next[column] = in, in
			}
		}
		switch a.role {
		case toArg:
			made.beforeArg, made.inArg = before, in
		case toTimeout:
			made.beforeNumber, made.inNumber, made.timed = before, in, true
		}
		following = before
	}
	addKeyword(kind, following, add)
	addShortcut(commands[kind].keyword, made)
}

// addKeyword adds the states of a keyword, which it shares with others as far as they begin alike.
func addKeyword(kind Kind, following state, add func(node) state) {
	at := begin
	for _, letter := range []byte(commands[kind].keyword) {
		next := nodes[at].next[columnOf[letter]]
		if next == invalid {
			next = add(node{next: nowhere(), reason: WantKeyword})
			nodes[at].next[columnOf[letter]] = next
		}
		at = next
	}
	nodes[at].next[columnSpace] = following
	nodes[at].reason = WantSpace
}

func addShortcut(keyword string, made shortcut) {
	at := &shortcuts[keyword[0]%32]
	if at.kind != 0 || len(keyword) > 7 {
		return
	}
	made.size = uint(len(keyword)) + 1
	made.mask = 1<<(8*made.size) - 1
	for i, c := range []byte(keyword + " ") {
		made.word |= uint64(c) << (8 * i)
		if c != ' ' {
			made.fold |= uint64(lowerCase) << (8 * i)
		}
	}
	*at = made
}

// nowhere returns transitions none of which is possible.
func nowhere() (next [columns]state) {
	for i := range next {
		next[i] = invalid
	}
	return next
}

// to returns the transitions with one more.
func to(next [columns]state, column uint8, s state) [columns]state {
	next[column] = s
	return next
}

func makeColumns() (table [256]uint8) {
	for c := range table {
		switch {
		case setOf[c] == letters:
			table[c] = columnLetter + (uint8(c) | lowerCase - 'a')
		case setOf[c] == digits:
			table[c] = columnDigit
		case setOf[c] == marks:
			table[c] = columnMark
		default:
			table[c] = columnOther
		}
	}
	table[' '], table['\r'], table['\n'] = columnSpace, columnCR, columnLF
	return table
}

// keywords lists all keywords for people.
func keywords() string {
	var all []string
	for _, c := range commands[1:] {
		all = append(all, c.keyword)
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}
