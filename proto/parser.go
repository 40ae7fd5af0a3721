package proto

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Status is the outcome of one Next.
type Status uint8

// The outcomes.
const (
	More     Status = iota // the input is used up, and the command is unfinished or none has begun
	Complete               // a command was filled in
	Invalid                // a syntax error: see Parser.Err
)

// Parser turns the bytes of one connection, in fragments of any size, into commands. The zero value is ready. It is not
// safe for concurrent use.
type Parser struct {
	// kept holds the key of the latest command, or as much of it as has come, if it could not be left in the input;
	// else it is empty. The memory is reused by later commands.
	kept []byte

	// What Next stopped with. Outside of More only state and length mean anything.
	millis uint64 // timeout so far
	length uint16 // bytes of the command before the input; of an invalid one, before the offending byte
	state  state
	kind   Kind

	// The syntax error, in the invalid state.
	reason Reason
	bad    byte
}

// state is where in a command the input ran out.
type state uint8

const (
	begin     state = iota // between two commands
	inKeyword              // length bytes of the keyword of kind have come, perhaps all
	beforeKey              // a space and perhaps more
	inKey
	beforeTimeout // a space and perhaps more
	inTimeout
	tail // a space and perhaps more
	beforeLF
	invalid
)

const (
	// minKept is the least storage for keys, in bytes, and holds all but unusual ones; growth doubles it.
	minKept = 64

	// maxMillis is MaxTimeout in the unit of the wire. There is room for one more digit in a uint64.
	maxMillis = uint64(MaxTimeout / time.Millisecond)

	// lowerCase makes an ASCII letter lower case. No byte but the two cases of a letter becomes that letter.
	lowerCase = 0x20

	// A keyword and its space as the low bytes of a little-endian word: the bytes, the bits that make its letters lower
	// case, and the bits that it takes up.
	lockWord    = 'l' | 'o'<<8 | 'c'<<16 | 'k'<<24 | ' '<<32
	lockLower   = 0x20_20_20_20
	lockBits    = 1<<40 - 1
	unlockWord  = 'u' | 'n'<<8 | 'l'<<16 | 'o'<<24 | 'c'<<32 | 'k'<<40 | ' '<<48
	unlockLower = 0x20_20_20_20_20_20
	unlockBits  = 1<<56 - 1
)

var keywords = [...]string{Lock: "lock", Unlock: "unlock"}

// keyByte tells the bytes of keys.
var keyByte = [256]bool{
	'0': true, '1': true, '2': true, '3': true, '4': true, '5': true, '6': true, '7': true, '8': true, '9': true,
	'A': true, 'B': true, 'C': true, 'D': true, 'E': true, 'F': true, 'G': true, 'H': true, 'I': true, 'J': true,
	'K': true, 'L': true, 'M': true, 'N': true, 'O': true, 'P': true, 'Q': true, 'R': true, 'S': true, 'T': true,
	'U': true, 'V': true, 'W': true, 'X': true, 'Y': true, 'Z': true,
	'a': true, 'b': true, 'c': true, 'd': true, 'e': true, 'f': true, 'g': true, 'h': true, 'i': true, 'j': true,
	'k': true, 'l': true, 'm': true, 'n': true, 'o': true, 'p': true, 'q': true, 'r': true, 's': true, 't': true,
	'u': true, 'v': true, 'w': true, 'x': true, 'y': true, 'z': true,
}

// Next parses data up to and including the end of the first command and returns the number of bytes it consumed. With
// Complete it has filled in cmd, and the rest of data is for the next Next; with More, that is all of data; with
// Invalid, the bytes before the offending one. After Invalid, Next consumes nothing and stays Invalid.
//
// Each state is a label followed by its own loop. The state has a number only between two calls: it is stored where the
// input runs out, and jumped to at the start.
func (p *Parser) Next(data []byte, cmd *Command) (n int, status Status) {
	// Indexes are unsigned so that the loop conditions alone prove them in bounds.
	var (
		i, from uint // the byte at hand; the first byte of the key in data
		c       byte
		key     []byte
		kind    Kind
		millis  uint64
		word    string
		reason  Reason
	)
	given := data
	length := uint(p.length)
	if uint(len(data)) > MaxCommand-length {
		data = data[:MaxCommand-length]
	}

	if p.state != begin {
		key, kind, millis = p.kept, p.kind, p.millis
		switch p.state {
		case inKeyword:
			goto keyword
		case beforeKey:
			goto spacesBeforeKey
		case inKey:
			goto key
		case beforeTimeout:
			goto spacesBeforeTimeout
		case inTimeout:
			goto timeout
		case tail:
			goto spacesAtEnd
		case beforeLF:
			goto lineFeed
		default:
			return 0, Invalid
		}
	}

	p.kept = p.kept[:0]
	if len(data) >= 8 { // the shortest command has 10
		first := binary.LittleEndian.Uint64(data)
		if (first|lockLower)&lockBits == lockWord {
			kind, i = Lock, 5
			goto spacesBeforeKey
		}
		if (first|unlockLower)&unlockBits == unlockWord {
			kind, i = Unlock, 7
			goto spacesBeforeKey
		}
	}
	if len(data) == 0 {
		return 0, More
	}
	switch data[0] | lowerCase {
	case 'l':
		kind = Lock
	case 'u':
		kind = Unlock
	default:
		reason = WantKeyword
		goto fail
	}
	i = 1

keyword: // matched by position: length+i of its bytes have come
	word = keywords[kind]
	for ; i < uint(len(data)); i++ {
		c = data[i]
		if length+i >= uint(len(word)) {
			if c != ' ' {
				reason = WantSpace
				goto fail
			}
			i++
			goto spacesBeforeKey
		}
		if c|lowerCase != word[length+i] {
			reason = WantKeyword
			goto fail
		}
	}
	p.state = inKeyword
	goto more

spacesBeforeKey:
	for ; i < uint(len(data)); i++ {
		c = data[i]
		if keyByte[c] {
			from = i
			i++
			goto key
		}
		if c != ' ' {
			reason = WantKey
			goto fail
		}
	}
	p.state = beforeKey
	goto more

key: // began at from, or in an earlier input and goes on at 0
	for j := i; j < uint(len(data)); j++ { // with i itself, the compiler spills it in every round
		if b := data[j]; !keyByte[b] {
			i, c = j, b
			goto keyEnds
		}
	}
	i = uint(len(data))
	p.state = inKey
	p.keep(data[from:])
	goto more

keyEnds: // at c
	key = data[from:i:i] // its capacity ends with it, as the rest of data is not the key's to append to
	if len(p.kept) > 0 {
		p.keep(key)
		key = p.kept
	}
	if kind == Lock {
		if c == ' ' {
			i++
			goto spacesBeforeTimeout
		}
		reason = WantKeyOrSpace
		goto fail
	}
	if c == '\r' {
		i++
		goto lineFeed
	}
	if c == ' ' {
		i++
		goto spacesAtEnd
	}
	reason = WantKeyOrEnd
	goto fail

spacesBeforeTimeout:
	for ; i < uint(len(data)); i++ {
		c = data[i]
		if c-'0' <= 9 {
			goto timeout
		}
		if c != ' ' {
			reason = WantTimeout
			goto fail
		}
	}
	p.state = beforeTimeout
	goto more

timeout:
	for ; i < uint(len(data)); i++ {
		c = data[i]
		if c-'0' > 9 {
			goto timeoutEnds
		}
		millis = min(millis*10+uint64(c-'0'), maxMillis)
	}
	p.state = inTimeout
	goto more

timeoutEnds: // at c
	if c == '\r' {
		i++
		goto lineFeed
	}
	if c == ' ' {
		i++
		goto spacesAtEnd
	}
	reason = WantDigitOrEnd
	goto fail

spacesAtEnd:
	for ; i < uint(len(data)); i++ {
		c = data[i]
		if c == '\r' {
			i++
			goto lineFeed
		}
		if c != ' ' {
			reason = WantEnd
			goto fail
		}
	}
	p.state = tail
	goto more

lineFeed:
	if i < uint(len(data)) {
		if data[i] != '\n' {
			reason = WantLF
			goto fail
		}
		cmd.Kind = kind
		cmd.Key = key
		cmd.Timeout = time.Duration(millis) * time.Millisecond
		p.state = begin
		p.length = 0
		return int(i + 1), Complete
	}
	p.state = beforeLF

more:
	if len(data) < len(given) {
		reason = TooLong
		goto fail
	}
	if len(p.kept) == 0 {
		p.keep(key) // a complete one, in data, or none yet
	}
	p.length = uint16(length + i)
	p.kind = kind
	p.millis = millis
	return int(i), More

fail: // at byte i
	p.state = invalid
	p.length = uint16(length + i)
	p.reason = reason
	p.bad = given[i]
	return int(i), Invalid
}

// Retain makes cmd.Key outlive the input: it copies the key into the parser's storage unless it is there already. cmd
// must be what the latest Next completed. The key is then valid until the next Next.
func (p *Parser) Retain(cmd *Command) {
	if p.state != begin {
		panic(fmt.Sprintf("proto: Retain of key %q in the middle of a command, state %d", cmd.Key, p.state))
	}
	if len(p.kept) == 0 {
		p.keep(cmd.Key)
		cmd.Key = p.kept
	}
}

// Err returns the syntax error after Invalid, else nil.
func (p *Parser) Err() *SyntaxError {
	if p.state != invalid {
		return nil
	}
	return &SyntaxError{Reason: p.reason, Column: int(p.length) + 1, Byte: p.bad}
}

// keep appends key bytes to the parser's storage. The grammar bounds them to MaxCommand.
func (p *Parser) keep(b []byte) {
	if need := len(p.kept) + len(b); need > cap(p.kept) {
		grown := make([]byte, len(p.kept), min(max(need, 2*cap(p.kept), minKept), MaxCommand))
		copy(grown, p.kept)
		p.kept = grown
	}
	p.kept = append(p.kept, b...)
}
