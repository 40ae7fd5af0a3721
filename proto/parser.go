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
	// kept holds the argument of the latest command, or as much of it as has come, if it could not be left in the input;
	// else it is empty. The memory is reused by later commands.
	kept []byte

	// What Next stopped with. Between two commands only state means anything, and length, which is 0.
	millis uint64 // timeout so far
	length uint16 // bytes of the command before the input; of an invalid one, before the offending byte
	state  state

	// The syntax error, in the invalid state.
	reason Reason
	bad    byte
}

const (
	// minKept is the least storage for arguments, in bytes, and holds all but unusual ones; growth doubles it.
	minKept = 64

	// maxMillis is MaxTimeout in the unit of the wire. There is room for one more digit in a uint64.
	maxMillis = uint64(MaxTimeout / time.Millisecond)

	// lowerCase makes an ASCII letter lower case. No byte but the two cases of a letter becomes that letter.
	lowerCase = 0x20
)

// Next parses data up to and including the end of the first command and returns the number of bytes it consumed. With
// Complete it has filled in cmd, and the rest of data is for the next Next; with More, that is all of data; with
// Invalid, the bytes before the offending one. After Invalid, Next consumes nothing and stays Invalid.
//
// A command of the usual form, whole in data and with one space between its words, is read here from end to end, several
// times as fast as state by state. Where a command leaves that form step goes on; what a client sends then is rare, or not
// sent in a hurry.
func (p *Parser) Next(data []byte, cmd *Command) (n int, status Status) {
	if p.state != begin {
		if p.state == invalid {
			return 0, Invalid
		}
		return p.step(data, cmd, p.state, 0, 0, 0)
	}
	p.kept = p.kept[:0]
	if len(data) < 8 { // as no command is
		return p.step(data, cmd, begin, 0, 0, 0)
	}
	word := binary.LittleEndian.Uint64(data)
	kind := Lock
	for (word|shortcuts[kind].fold)&shortcuts[kind].mask != shortcuts[kind].word {
		kind++
		if int(kind) == NumKinds {
			return p.step(data, cmd, begin, 0, 0, 0)
		}
	}
	usual := &shortcuts[kind]

	// Indexes are unsigned so that the loop conditions alone prove them in bounds.
	line := data[:min(len(data), MaxCommand)]
	from := uint(usual.size)
	to := from
	for bytes := usual.bytes; to < uint(len(line)) && setOf[line[to]]&bytes != 0; to++ {
	}
	if to == from || to-from > uint(usual.longest) {
		return p.step(data, cmd, usual.beforeArg, from, 0, 0)
	}
	i := to
	var millis uint64
	if usual.timed {
		if i >= uint(len(line)) || line[i] != ' ' {
			return p.step(data, cmd, usual.inArg, i, from, 0)
		}
		i++
		for ; i < uint(len(line)); i++ {
			digit := line[i] - '0'
			if digit > 9 || millis >= maxMillis/10 {
				break
			}
			millis = millis*10 + uint64(digit)
		}
		if i == to+1 {
			return p.step(data, cmd, usual.beforeNumber, i, from, to)
		}
	}
	if i+1 < uint(len(line)) && line[i] == '\r' && line[i+1] == '\n' {
		cmd.Kind = kind
		cmd.Arg = line[from:to:to] // its capacity ends with it, as the rest of data is not the argument's to append to
		cmd.Timeout = time.Duration(millis) * time.Millisecond
		return int(i + 2), Complete
	}
	if usual.timed {
		p.millis = millis
		return p.step(data, cmd, usual.inNumber, i, from, to)
	}
	return p.step(data, cmd, usual.inArg, i, from, 0)
}

// step is the rest of Next: it reads on from byte i in state s, from one state to the next. data[from:to] is the argument
// if it is not in kept; inside it, data[from:i] is what has come of it.
func (p *Parser) step(data []byte, cmd *Command, s state, i, from, to uint) (int, Status) {
	within := data[:min(uint(len(data)), MaxCommand-uint(p.length))]
	millis := p.millis
	for i < uint(len(within)) {
		here := &nodes[s]
		reason := here.reason
		if here.role == toArg {
			end := from + uint(here.max) - uint(len(p.kept)) // of the longest
			i = span(within[:min(uint(len(within)), end)], i, here.bytes)
			if i == uint(len(within)) {
				break
			}
			if i == end {
				reason = WantEnd
			}
		}
		c := within[i]
		next := here.next[columnOf[c]&(columns-1)]
		switch {
		case next == invalid || next == s && here.role == toArg: // the latter, were the argument not too long
			return p.fail(data, i, reason)
		case next == done:
			arg := p.kept
			if len(arg) == 0 {
				arg = data[from:to:to]
			}
			*cmd = Command{Kind: here.kind, Arg: arg, Timeout: time.Duration(millis) * time.Millisecond}
			p.state, p.length, p.millis = begin, 0, 0
			return int(i + 1), Complete
		case here.role == toArg:
			to = i
			if len(p.kept) > 0 {
				p.keep(within[from:to])
			}
		}
		switch nodes[next].role {
		case toArg:
			from = i
		case toTimeout:
			millis = min(millis*10+uint64(c-'0'), maxMillis)
		}
		s = next
		i++
	}
	if len(within) < len(data) {
		return p.fail(data, i, TooLong)
	}
	if nodes[s].role == toArg {
		p.keep(within[from:])
	} else if len(p.kept) == 0 {
		p.keep(within[from:to])
	}
	p.state = s
	p.length += uint16(len(within))
	p.millis = millis
	return len(within), More
}

//

// span returns where the bytes of the set that begin at byte i of b end.
func span(b []byte, i uint, s set) uint {
	for i < uint(len(b)) && setOf[b[i]]&s != 0 {
		i++
	}
	return i
}

// fail makes byte i of data a syntax error.
func (p *Parser) fail(data []byte, i uint, reason Reason) (int, Status) {
	p.state = invalid
	p.length += uint16(i)
	p.reason = reason
	p.bad = data[i]
	return int(i), Invalid
}

// Retain makes cmd.Arg outlive the input: it copies the argument into the parser's storage unless it is there already.
// cmd must be what the latest Next completed. The argument is then valid until the next Next.
func (p *Parser) Retain(cmd *Command) {
	if p.state != begin {
		panic(fmt.Sprintf("proto: Retain of %q in the middle of a command, state %d", cmd.Arg, p.state))
	}
	if len(p.kept) == 0 {
		p.keep(cmd.Arg)
		cmd.Arg = p.kept
	}
}

// Err returns the syntax error after Invalid, else nil.
func (p *Parser) Err() *SyntaxError {
	if p.state != invalid {
		return nil
	}
	return &SyntaxError{Reason: p.reason, Column: int(p.length) + 1, Byte: p.bad}
}

// keep appends to what the parser keeps of the argument. The grammar bounds that to MaxCommand.
func (p *Parser) keep(b []byte) {
	if need := len(p.kept) + len(b); need > cap(p.kept) {
		grown := make([]byte, len(p.kept), min(max(need, 2*cap(p.kept), minKept), MaxCommand))
		copy(grown, p.kept)
		p.kept = grown
	}
	p.kept = append(p.kept, b...)
}
