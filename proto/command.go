package proto

import (
	"math"
	"strconv"
	"time"
)

const (
	// MaxCommand is the largest length of a command in bytes, CR LF included. It bounds what a parser stores for a
	// connection.
	MaxCommand = 10_000

	// MaxTimeout is the longest timeout, some 292 years: the largest time.Duration of whole milliseconds. A larger
	// number on the wire means MaxTimeout.
	MaxTimeout = math.MaxInt64 / time.Millisecond * time.Millisecond

	// MaxName is the largest length in bytes of the text of a name.
	MaxName = 128

	// MaxOwner is the largest length in bytes of the id of an owner.
	MaxOwner = 64
)

// Kind says what a command asks for. The zero Kind is none.
type Kind uint8

// The kinds of commands.
const (
	Lock Kind = iota + 1
	Unlock
	Fence
	Name
	Owner

	// NumKinds is the length of an array indexed by Kind, the zero Kind included.
	NumKinds = iota + 1
)

// Command is one command as Parser.Next fills it in.
type Command struct {
	Kind Kind

	// Arg is the key of a lock, an unlock or a fence, the text of a name, the id of an owner. It aliases the input of the
	// Next that completed the command, or the parser's own storage. It is valid until that input changes (see
	// Parser.Retain) or until the next Next, whichever comes first.
	Arg []byte

	// Timeout of a lock, in whole milliseconds, 0 to MaxTimeout; 0 of every other command.
	Timeout time.Duration
}

// commands is the grammar: for each kind its keyword, its arguments and the replies that it can have. states.go makes the
// parser's states from it.
var commands = [NumKinds]struct {
	keyword   string // lower case letters
	arguments []argument
	replies   []Reply
}{
	Lock:   {"lock", []argument{key, timeout}, []Reply{Locked, TimedOut, AlreadyLocked, Kicked, Deadlock, TooManyKeys, OutOfMemory}},
	Unlock: {"unlock", []argument{key}, []Reply{Unlocked, NotLocked, NotOwner}},
	Fence:  {"fence", []argument{key}, []Reply{Token, NotLocked, NotOwner}},
	Name:   {"name", []argument{text}, []Reply{Named}},
	Owner:  {"owner", []argument{id}, []Reply{Owned}},
}

// argument is a word of a command. Every command has one that becomes Command.Arg, and may have a number after it.
type argument struct {
	bytes set // that it consists of
	max   int // length in bytes; not used for numbers
	role  role

	first Reason // a byte cannot begin the argument
	more  Reason // a byte cannot continue it, and another argument follows
	last  Reason // a byte cannot continue it, and none follows
}

// role says where an argument is stored.
type role uint8

const (
	toArg     role = iota + 1 // in Command.Arg
	toTimeout                 // in Command.Timeout: a number of milliseconds
)

var (
	key     = argument{bytes: letters | digits, max: MaxCommand, role: toArg, first: WantKey, more: WantKeyOrSpace, last: WantKeyOrEnd}
	timeout = argument{bytes: digits, role: toTimeout, first: WantTimeout, last: WantDigitOrEnd}
	text    = argument{bytes: letters | digits | marks, max: MaxName, role: toArg, first: WantText, last: WantTextOrEnd}
	id      = argument{bytes: letters | digits, max: MaxOwner, role: toArg, first: WantID, last: WantIDOrEnd}
)

// set is a set of bytes.
type set uint8

const (
	letters set = 1 << iota // A-Z a-z
	digits                  // 0-9
	marks                   // the rest of %x21-7E
)

// setOf maps each byte to the set that it belongs to, 0 for none.
var setOf = makeSets()

func makeSets() (sets [256]set) {
	for c := byte('!'); c <= '~'; c++ {
		switch {
		case c-'0' <= 9:
			sets[c] = digits
		case c|lowerCase-'a' < 26:
			sets[c] = letters
		default:
			sets[c] = marks
		}
	}
	return sets
}

// String returns the keyword of the kind.
func (k Kind) String() string {
	if k == 0 || int(k) >= NumKinds {
		return "Kind(" + strconv.Itoa(int(k)) + ")"
	}
	return commands[k].keyword
}

// HasKey reports whether the argument of the kind is a key.
func (k Kind) HasKey() bool { return k != 0 && commands[k].arguments[0].first == WantKey }

// Replies returns the replies that a command of the kind can have, always in the same order. Do not modify the slice.
func (k Kind) Replies() []Reply { return commands[k].replies }
