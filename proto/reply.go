package proto

import (
	"strconv"
	"time"
)

// Reply is the answer of a server, without the numbers that it may carry. The zero Reply is none. doc.go says when each
// is sent.
type Reply uint8

// The replies.
const (
	Locked Reply = iota + 1
	TimedOut
	Unlocked
	Token // carries the token: AppendToken
	Named // carries the silence and the space: AppendNamed
	Owned
	AlreadyLocked
	NotLocked
	NotOwner
	Kicked // ends a wait; then the connection is closed
	Deadlock
	TooManyKeys
	OutOfMemory        // also sent unasked, before the connection is closed
	TooManyConnections // answers no command: it is sent unasked, then the connection is closed

	// NumReplies is the length of an array indexed by Reply, the zero Reply included.
	NumReplies = iota + 1
)

// replies has for each reply its line, unless it carries numbers, and its name as the outcome of a command. A line that
// begins with "e" is an error.
var replies = [NumReplies]struct{ line, outcome string }{
	Locked:             {"l locked\r\n", "locked"},
	TimedOut:           {"t timeout\r\n", "timeout"},
	Unlocked:           {"u unlocked\r\n", "unlocked"},
	Token:              {"", "token"},
	Named:              {"", "named"},
	Owned:              {"o owned\r\n", "owned"},
	AlreadyLocked:      {"e already locked\r\n", "already_locked"},
	NotLocked:          {"e not locked\r\n", "not_locked"},
	NotOwner:           {"e not owner\r\n", "not_owner"},
	Kicked:             {"e kicked\r\n", "kicked"},
	Deadlock:           {"e deadlock\r\n", "deadlock"},
	TooManyKeys:        {"e too many keys\r\n", "too_many_keys"},
	OutOfMemory:        {"e out of memory\r\n", "out_of_memory"},
	TooManyConnections: {"e too many connections\r\n", "too_many_connections"},
}

// The beginnings of the replies with numbers.
const (
	beforeToken = "f "
	beforeNamed = "n named "
)

// MaxReply is the largest length in bytes of a reply, CR LF included.
const MaxReply = len("n named 9223372036854 0123456789abcdef\r\n")

// Outcome returns the name of the reply in counters, metrics and the API.
func (r Reply) Outcome() string {
	if r == 0 || int(r) >= NumReplies {
		return "Reply(" + strconv.Itoa(int(r)) + ")"
	}
	return replies[r].outcome
}

// Line returns the whole line of a reply without numbers, CR LF included.
func (r Reply) Line() string {
	line := replies[r].line
	if line == "" {
		panic("proto: no fixed line for " + r.Outcome())
	}
	return line
}

// Append appends the whole line of a reply without numbers to dst and returns the extended slice.
func (r Reply) Append(dst []byte) []byte { return append(dst, r.Line()...) }

// AppendToken appends the reply that carries a token, 1 to 2^63-1, to dst and returns the extended slice.
func AppendToken(dst []byte, token uint64) []byte {
	dst = append(dst, beforeToken...)
	dst = strconv.AppendUint(dst, token, 10)
	return append(dst, "\r\n"...)
}

// AppendNamed appends the reply to a name to dst and returns the extended slice. silence is the time after which a client
// whose host has vanished loses its keys, rounded down to a millisecond; space identifies the lock table.
func AppendNamed(dst []byte, silence time.Duration, space uint64) []byte {
	dst = append(dst, beforeNamed...)
	dst = strconv.AppendInt(dst, int64(max(silence, 0)/time.Millisecond), 10)
	dst = append(dst, ' ')
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[space>>shift&15])
	}
	return append(dst, "\r\n"...)
}
