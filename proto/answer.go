package proto

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// ErrReply is the error of ParseReply, wrapped with the line: no server of this protocol sends it.
var ErrReply = errors.New("proto: not a reply")

// Answer is a reply as a client reads it.
type Answer struct {
	// Reply is zero for an error that this version does not know.
	Reply Reply

	// Text is the text of an error, without its "e "; empty if the reply is not an error.
	Text string

	Token   uint64        // of Token
	Silence time.Duration // of Named, in whole milliseconds
	Space   uint64        // of Named
}

// ParseReply parses one line, CR LF included. It accepts exactly what Reply.Append, AppendToken and AppendNamed write and,
// as an Answer without a Reply, any other error of printable ASCII, so that a client understands newer servers. It does not
// keep line, and allocates only for errors that it does not know and for lines that it does not accept.
func ParseReply(line []byte) (Answer, error) {
	for r := Locked; int(r) < NumReplies; r++ {
		if whole := replies[r].line; whole != "" && string(line) == whole {
			return Answer{Reply: r, Text: errorText(whole)}, nil
		}
	}
	if text, ended := bytes.CutSuffix(line, []byte("\r\n")); ended {
		if a, ok := parseNumbers(text); ok {
			return a, nil
		}
		if unknown := errorText(string(line)); unknown != "" && printable(unknown) {
			return Answer{Text: unknown}, nil
		}
	}
	return Answer{}, fmt.Errorf("%w: %.60q", ErrReply, line)
}

// parseNumbers parses a reply that carries numbers, without its CR LF.
func parseNumbers(text []byte) (a Answer, ok bool) {
	if digits, found := bytes.CutPrefix(text, []byte(beforeToken)); found {
		a.Reply = Token
		a.Token, ok = decimal(digits, 1<<63-1)
		return a, ok && a.Token > 0
	}
	if words, found := bytes.CutPrefix(text, []byte(beforeNamed)); found {
		a.Reply = Named
		silence, space, _ := bytes.Cut(words, []byte(" "))
		ms, isNumber := decimal(silence, maxMillis)
		a.Silence = time.Duration(ms) * time.Millisecond
		a.Space, ok = hexadecimal(space)
		return a, ok && isNumber
	}
	return Answer{}, false
}

// decimal parses a decimal number without leading zeros; ok is false if b is not one or if it exceeds most.
func decimal(b []byte, most uint64) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 19 || b[0] == '0' && len(b) > 1 { // 19 digits fit into 64 bits
		return 0, false
	}
	for _, c := range b {
		if c-'0' > 9 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, n <= most
}

// hexadecimal parses a number of 16 hexadecimal digits in lower case.
func hexadecimal(b []byte) (n uint64, ok bool) {
	if len(b) != 16 {
		return 0, false
	}
	for _, c := range b {
		switch {
		case c-'0' <= 9:
			n = n<<4 | uint64(c-'0')
		case c-'a' < 6:
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// errorText returns the text of an error's line; empty if the line is not an error.
func errorText(line string) string {
	if len(line) < len("e \r\n") || line[:2] != "e " {
		return ""
	}
	return line[2 : len(line)-2]
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
