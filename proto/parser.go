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

// scan is how far a command has been read in one input.
type scan struct {
	state  state
	i      uint   // the byte at hand
	from   uint   // the first byte of the argument, if the state is inside it
	arg    []byte // the whole argument, if the state is after it
	millis uint64
}

// Next parses data up to and including the end of the first command and returns the number of bytes it consumed. With
// Complete it has filled in cmd, and the rest of data is for the next Next; with More, that is all of data; with
// Invalid, the bytes before the offending one. After Invalid, Next consumes nothing and stays Invalid.
//
// A command of the usual form, with one space between its words and whole in data, is read here from end to end. Where it
// leaves that form, and wherever data does not begin with a command, step goes on from state to state.
func (p *Parser) Next(data []byte, cmd *Command) (n int, status Status) {
	switch p.state {
	case begin:
	case invalid:
		return 0, Invalid
	default:
		return p.step(data, cmd, scan{state: p.state, arg: p.kept, millis: p.millis})
	}
	p.kept = p.kept[:0]
	if len(data) < 8 { // the shortest command has 9
		return p.step(data, cmd, scan{})
	}
	word := binary.LittleEndian.Uint64(data)
	usual := &shortcuts[word%32]
	if (word|usual.fold)&usual.mask != usual.word {
		return p.step(data, cmd, scan{})
	}

	// Indexes are unsigned so that the loop conditions alone prove them in bounds.
	line := data[:min(len(data), MaxCommand)]
	inside := &nodes[usual.inArg]
	i := usual.size
	from := i
	for end := min(uint(len(line)), from+inside.max); i < end && setOf[line[i]]&inside.bytes != 0; i++ {
	}
	if i == from {
		return p.step(data, cmd, scan{state: usual.beforeArg, i: i})
	}
	arg := line[from:i:i] // its capacity ends with it, as the rest of data is not the argument's to append to

	var millis uint64
	if usual.timed {
		if i == uint(len(line)) || line[i] != ' ' {
			return p.step(data, cmd, scan{state: usual.inArg, i: i, from: from})
		}
		i++
		first := i
		for ; i < uint(len(line)) && line[i]-'0' <= 9; i++ {
			millis = min(millis*10+uint64(line[i]-'0'), maxMillis)
		}
		if i == first {
			return p.step(data, cmd, scan{state: usual.beforeNumber, i: i, arg: arg})
		}
	}
	if i+1 < uint(len(line)) && line[i] == '\r' && line[i+1] == '\n' {
		*cmd = Command{Kind: usual.kind, Arg: arg, Timeout: time.Duration(millis) * time.Millisecond}
		return int(i + 2), Complete
	}
	if usual.timed {
		return p.step(data, cmd, scan{state: usual.inNumber, i: i, arg: arg, millis: millis})
	}
	return p.step(data, cmd, scan{state: usual.inArg, i: i, from: from})
}

// step is the rest of Next: it reads on from where s has come to, a byte and a state at a time. Only inside an argument it
// goes straight to the end of it.
func (p *Parser) step(data []byte, cmd *Command, s scan) (int, Status) {
	within := data[:min(uint(len(data)), MaxCommand-uint(p.length))]
	for s.i < uint(len(within)) {
		here := &nodes[s.state]
		reason := here.reason
		if here.role == toArg {
			end := s.from + here.max - uint(len(p.kept)) // of the longest
			for s.i < uint(len(within)) && s.i < end && setOf[within[s.i]]&here.bytes != 0 {
				s.i++
			}
			if s.i == uint(len(within)) {
				break
			}
			if s.i == end {
				reason = WantEnd
			}
		}
		c := within[s.i]
		next := here.next[columnOf[c]&(columns-1)]
		switch {
		case next == invalid || next == s.state && here.role == toArg: // the latter, were the argument not too long
			return p.fail(data, s.i, reason)
		case next == done:
			*cmd = Command{Kind: here.kind, Arg: s.arg, Timeout: time.Duration(s.millis) * time.Millisecond}
			p.state, p.length = begin, 0
			return int(s.i + 1), Complete
		case here.role == toArg:
			s.arg = p.join(within[s.from:s.i:s.i])
		}
		switch nodes[next].role {
		case toArg:
			s.from = s.i
		case toTimeout:
			s.millis = min(s.millis*10+uint64(c-'0'), maxMillis)
		}
		s.state = next
		s.i++
	}
	if len(within) < len(data) {
		return p.fail(data, s.i, TooLong)
	}
	if nodes[s.state].role == toArg {
		p.keep(within[s.from:])
	} else if len(p.kept) == 0 {
		p.keep(s.arg)
	}
	p.state = s.state
	p.length += uint16(len(within))
	p.millis = s.millis
	return len(within), More
}

// fail makes byte i of data a syntax error.
func (p *Parser) fail(data []byte, i uint, reason Reason) (int, Status) {
	p.state = invalid
	p.length += uint16(i)
	p.reason = reason
	p.bad = data[i]
	return int(i), Invalid
}

// join returns the whole argument, of which rest has come last: rest itself if that is all of it.
func (p *Parser) join(rest []byte) []byte {
	if len(p.kept) == 0 {
		return rest
	}
	p.keep(rest)
	return p.kept
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
