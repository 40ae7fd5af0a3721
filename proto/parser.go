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
	// kept holds the argument of the latest command, or the part of it that has arrived, if it could not be left in the
	// input; otherwise it is empty. Later commands reuse the memory.
	kept []byte

	// Where Next stopped. Between two commands millis and length are 0.
	millis uint64 // the timeout so far
	length uint16 // bytes of the command before the input; of an invalid one, before the offending byte
	state  state

	// The syntax error, in the invalid state.
	reason Reason
	bad    byte
}

const (
	// minKept is the smallest storage for arguments, in bytes. It is enough for most; growth doubles it.
	minKept = 32

	// maxMillis is MaxTimeout in the unit of the wire. There is room for one more digit in a uint64.
	maxMillis = uint64(MaxTimeout / time.Millisecond)

	// lowerCase is the bit that makes an ASCII letter lower case. With it, no byte but the two cases of a letter becomes
	// that letter.
	lowerCase = 0x20
)

// Next parses data up to and including the end of the first command and returns the number of bytes it consumed. With
// Complete it has filled in cmd, and the rest of data is for the next Next; with More, that is all of data; with
// Invalid, the bytes before the offending one. After Invalid, Next consumes nothing and stays Invalid.
//
// A command of the usual form, whole in data and with one space between its words, is parsed here from end to end, which
// is more than twice as fast as state by state. Where a command departs from that form, step continues.
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

	// Indexes are unsigned so that the loop conditions alone prove them to be in bounds.
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
		cmd.Arg = line[from:to:to] // without spare capacity, so that an append cannot overwrite the rest of data
		cmd.Timeout = time.Duration(millis) * time.Millisecond
		return int(i + 2), Complete
	}
	if usual.timed {
		p.millis = millis
		return p.step(data, cmd, usual.inNumber, i, from, to)
	}
	return p.step(data, cmd, usual.inArg, i, from, 0)
}

// step is the rest of Next: it continues at byte i in state s, one state at a time. data[from:to] is the argument unless
// it is in kept; inside the argument, data[from:i] is the part that has arrived with this input.
func (p *Parser) step(data []byte, cmd *Command, s state, i, from, to uint) (int, Status) {
	within := data[:min(uint(len(data)), MaxCommand-uint(p.length))]
	millis := p.millis
	for i < uint(len(within)) {
		here := &nodes[s]
		reason := here.reason
		if here.role == toArg {
			end := from + uint(here.max) - uint(len(p.kept)) // of the longest argument that is allowed
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
		case next == invalid || next == s && here.role == toArg: // the latter means that the argument is too long
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

// span returns the index of the first byte of b, from i on, that is not in the set; len(b) if there is none.
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
// cmd must be the command that the latest Next completed. The argument is then valid until the next Next.
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

// keep appends b to the stored part of the argument, which the grammar limits to MaxCommand bytes.
func (p *Parser) keep(b []byte) {
	if need := len(p.kept) + len(b); need > cap(p.kept) {
		grown := make([]byte, len(p.kept), min(max(need, 2*cap(p.kept), minKept), MaxCommand))
		copy(grown, p.kept)
		p.kept = grown
	}
	p.kept = append(p.kept, b...)
}

// Kept returns the size of the storage for arguments, in bytes: MaxCommand at most.
func (p *Parser) Kept() int { return cap(p.kept) }

// Trim gives up the storage for arguments, unless a command has begun. No command that Next has returned may be in use.
func (p *Parser) Trim() {
	if p.state == begin {
		p.kept = nil
	}
}
