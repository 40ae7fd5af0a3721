package proto

import "strings"

// state is where in a command the input ran out. All but these three are made from the table of commands:
//
//	begin ─► keyword, letter by letter ─SP─► before an argument ─► in it ─┬─SP─► before the next
//	  ▲                                                                   └─SP─► tail ─┐
//	  └────────────────────────────────── LF ─── before LF ◄─CR── in the last, tail ◄──┘
type state uint8

const (
	begin   state = iota // between two commands
	invalid              // after a syntax error
	done                 // only what LF leads to: the command is complete, and the state is begin
)

// The columns of the transition table. A byte's column is all that a state needs to know of it.
const (
	columnLetter = iota      // the first of 26: the two cases of a letter share one
	columnDigit  = iota + 25 // and so on
	columnMark
	columnSpace
	columnCR
	columnLF
	columnOther
	columns
)

// node is a state and what leads out of it.
type node struct {
	next   [columns]state // invalid where a byte of the column cannot follow
	reason Reason         // why it cannot
	kind   Kind           // of the command, once the keyword is known

	// In an argument.
	role  role
	bytes set
	max   uint16
}

// shortcut is what it takes to read a whole command of the usual form without going from state to state, and the states
// in which reading goes on where the command leaves that form.
type shortcut struct {
	word, fold, mask uint64 // the keyword and a space in a little-endian word; what makes it lower case; its bits
	size             uint8  // of both in bytes
	bytes            set    // of the argument
	longest          uint16 // such argument in bytes
	timed            bool   // a number follows

	beforeArg, inArg, beforeNumber, inNumber state
}

var (
	columnOf  = makeColumns()
	nodes     [256]node // by state, which needs no check as an index
	shortcuts [NumKinds]shortcut
)

func init() {
	last := done
	add := func(kind Kind, reason Reason) state {
		last++
		nodes[last] = node{next: nowhere(), kind: kind, reason: reason}
		return last
	}
	nodes[begin] = node{next: nowhere(), reason: WantKeyword}
	nodes[invalid] = node{next: nowhere()}
	for kind := Lock; int(kind) < NumKinds; kind++ {
		addCommand(kind, add)
	}
}

// addCommand adds the states of a kind, the last ones first.
func addCommand(kind Kind, add func(Kind, Reason) state) {
	usual := newShortcut(commands[kind].keyword)
	beforeLF, tail := add(kind, WantLF), add(kind, WantEnd)
	nodes[beforeLF].next[columnLF] = done
	nodes[tail].next[columnSpace] = tail
	nodes[tail].next[columnCR] = beforeLF

	following := tail
	arguments := commands[kind].arguments
	for i := len(arguments) - 1; i >= 0; i-- {
		a := arguments[i]
		before, in := add(kind, a.first), add(kind, a.more)
		nodes[before].next[columnSpace] = before
		nodes[in].next[columnSpace] = following
		if following == tail {
			nodes[in].next[columnCR] = beforeLF
			nodes[in].reason = a.last
		}
		for c, column := range columnOf {
			if setOf[c]&a.bytes != 0 {
				nodes[before].next[column], nodes[in].next[column] = in, in
			}
		}
		nodes[in].role, nodes[in].bytes, nodes[in].max = a.role, a.bytes, uint16(a.max)
		if a.role == toArg {
			usual.beforeArg, usual.inArg, usual.bytes, usual.longest = before, in, a.bytes, uint16(a.max)
		} else {
			usual.beforeNumber, usual.inNumber, usual.timed = before, in, true
		}
		following = before
	}
	shortcuts[kind] = usual
	addKeyword(commands[kind].keyword, following, add)
}

// addKeyword adds the states of a keyword, which it shares with others as far as they begin alike.
func addKeyword(keyword string, following state, add func(Kind, Reason) state) {
	at := begin
	for _, letter := range []byte(keyword) {
		next := &nodes[at].next[columnOf[letter]]
		if *next == invalid {
			*next = add(0, WantKeyword)
		}
		at = *next
	}
	nodes[at].next[columnSpace] = following
	nodes[at].reason = WantSpace
}

// newShortcut returns the shortcut of a keyword. One that does not fit into a word with its space has none: it matches
// nothing.
func newShortcut(keyword string) shortcut {
	word := keyword + " "
	if len(word) > 8 {
		return shortcut{word: 1}
	}
	s := shortcut{size: uint8(len(word)), mask: 1<<(8*len(word)) - 1}
	for i := range len(word) {
		s.word |= uint64(word[i]) << (8 * i)
		if word[i] != ' ' {
			s.fold |= lowerCase << (8 * i)
		}
	}
	return s
}

// nowhere returns transitions none of which is possible.
func nowhere() (next [columns]state) {
	for column := range next {
		next[column] = invalid
	}
	return next
}

func makeColumns() (table [256]uint8) {
	for c := range table {
		switch setOf[c] {
		case letters:
			table[c] = columnLetter + (uint8(c) | lowerCase - 'a')
		case digits:
			table[c] = columnDigit
		case marks:
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
	for _, c := range commands[Lock:] {
		all = append(all, c.keyword)
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}
