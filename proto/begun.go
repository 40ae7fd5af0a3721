package proto

import (
	"errors"
	"strconv"
)

// A parser that has stopped in a command can be made again in another process, of another version: what it knows is the beginning of
// a command, which any version can parse. The states have other numbers where there are other commands.

// ErrBegun is returned by [Parser.Resume].
var ErrBegun = errors.New("proto: that is not the beginning of a command")

// begunTexts are the shortest texts that lead to each state: argText and numberText stand for the arguments.
var begunTexts [256]string

const (
	argText    = '\x00'
	numberText = '\x01'
)

// Begun returns the beginning of the command in which the parser has stopped, with all that counts of it and nothing else, and how
// many bytes that was in truth. Between two commands, and after a syntax error, it is empty.
func (p *Parser) Begun() (text []byte, length int) {
	if p.state == begin || p.state == invalid {
		return nil, 0
	}
	for _, c := range []byte(begunTexts[p.state]) {
		switch c {
		case argText:
			text = append(text, p.kept...)
		case numberText:
			text = strconv.AppendUint(text, p.millis, 10)
		default:
			text = append(text, c)
		}
	}
	return text, int(p.length)
}

// Resume has a parser that was not used go on where another one has stopped, from what [Parser.Begun] has returned there. The
// error is [ErrBegun] if no parser can have returned that.
func (p *Parser) Resume(text []byte, length int) error {
	if len(text) == 0 && length == 0 {
		return nil
	}
	var cmd Command
	n, status := p.Next(text, &cmd)
	if status != More || n == 0 || length < n || length > MaxCommand {
		return ErrBegun
	}
	p.length = uint16(length)
	return nil
}
