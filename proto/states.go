package proto

import "strings"

// state is the place in a command where the input ran out. All but the three below are made from the table of commands:
//
//	begin ─► keyword, letter by letter ─SP─► before an argument ─► in it ─┬─SP─► before the next
//	  ▲                                                                   └─SP─► tail ─┐
//	  └────────────────────────────────── LF ─── before LF ◄─CR── in the last, tail ◄──┘
type state uint8

const (
	begin   state = iota // between two commands
	invalid              // after a syntax error
	done                 // the target of the last LF; the parser is then in begin
)

// The columns of the transition table. A state distinguishes bytes by their columns alone.
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

// node is a state and its transitions.
type node struct {
	next   [columns]state // invalid where a byte of that column is a syntax error
	reason Reason         // for that error
	kind   Kind           // of the command, once the keyword is known

	// Only inside an argument.
	role  role
	bytes set
	max   uint16
}

// shortcut is what Next needs to parse a whole command of the usual form without going from state to state, and the states
// in which step continues where the command departs from that form.
type shortcut struct {
	word, fold, mask uint64 // keyword and space as a little-endian word; the bits that make it lower case; all its bits
	size             uint8  // of keyword and space, in bytes
	bytes            set    // that the argument consists of
	longest          uint16 // argument, in bytes
	timed            bool   // a timeout follows

	beforeArg, inArg, beforeNumber, inNumber state
}

var (
	columnOf  = makeColumns()
	nodes     [256]node // by state: an index of one byte needs no bounds check
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

// addCommand adds the states of a kind from the end of the command to its beginning.
func addCommand(kind Kind, add func(Kind, Reason) state) {
	usual := newShortcut(commands[kind].keyword)
	beforeLF, tail := add(kind, WantLF), add(kind, WantEnd)
	whole := begunText(kind, len(commands[kind].arguments))
	begunTexts[beforeLF], begunTexts[tail] = whole+"\r", whole+" "
	nodes[beforeLF].next[columnLF] = done
	nodes[tail].next[columnSpace] = tail
	nodes[tail].next[columnCR] = beforeLF

	following := tail
	arguments := commands[kind].arguments
	for i := len(arguments) - 1; i >= 0; i-- {
		a := arguments[i]
		before, in := add(kind, a.first), add(kind, a.more)
		begunTexts[before], begunTexts[in] = begunText(kind, i)+" ", begunText(kind, i+1)
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

// begunText returns the shortest text of a command with the first n of its arguments: see begunTexts.
func begunText(kind Kind, n int) string {
	text := commands[kind].keyword
	for _, a := range commands[kind].arguments[:n] {
		if a.role == toArg {
			text += " " + string(argText)
		} else {
			text += " " + string(numberText)
		}
	}
	return text
}

// addKeyword adds the states of a keyword. Keywords that begin alike share states.
func addKeyword(keyword string, following state, add func(Kind, Reason) state) {
	at := begin
	for i, letter := range []byte(keyword) {
		next := &nodes[at].next[columnOf[letter]]
		if *next == invalid {
			*next = add(0, WantKeyword)
			begunTexts[*next] = keyword[:i+1]
		}
		at = *next
	}
	nodes[at].next[columnSpace] = following
	nodes[at].reason = WantSpace
}

// newShortcut returns the shortcut of a keyword. If keyword and space do not fit into a word, it matches nothing.
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

// nowhere returns transitions that are all syntax errors.
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
