package bench

import (
	"bytes"
	"fmt"
	"strings"
)

// Violation is a reply that the server must not send, or one that is missing.
type Violation struct {
	Connection int      // number of the connection, from 0; -1 if it is about many
	What       string   // what is wrong
	Sent       string   // the outstanding request; empty if there was none
	Came       string   // the bytes that arrived; empty if there were none
	Want       []string // the replies that were allowed
}

// Error describes the violation in one line.
func (v *Violation) Error() string {
	var b strings.Builder
	b.WriteString("bench: ")
	if v.Connection >= 0 {
		fmt.Fprintf(&b, "connection %d: ", v.Connection)
	}
	b.WriteString(v.What)
	if v.Sent != "" {
		fmt.Fprintf(&b, "; sent %s", brief(v.Sent))
	}
	if v.Came != "" {
		fmt.Fprintf(&b, "; received %s", brief(v.Came))
	}
	for i, w := range v.Want {
		word := "want"
		if i > 0 {
			word = "or"
		}
		fmt.Fprintf(&b, ", %s %s", word, brief(w))
	}
	return b.String()
}

// brief quotes bytes; of a long text it quotes the beginning.
func brief(s string) string {
	const most = 100
	if len(s) > most {
		return fmt.Sprintf("%q... (%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// expectation is the reply to an exchange, as far as it has arrived.
type expectation struct {
	exchange *exchange // nil if no reply is outstanding
	off      int       // bytes of the reply that have arrived
	alive    uint8     // the accepted replies that begin with them, as bits
}

// progress of an expectation after it was fed.
type progress uint8

const (
	moreToCome progress = iota
	answered
	wrong
)

func (x *expectation) expect(e *exchange) {
	x.exchange = e
	x.off = 0
	x.alive = 1<<len(e.accept) - 1
}

// feed takes bytes that arrived. If they complete a reply, it returns how many belong to it and which reply it is, and
// the expectation is over. If they are wrong, the expectation stays as it was.
func (x *expectation) feed(data []byte) (n, outcome int, p progress) {
	var left uint8
	for i, reply := range x.exchange.accept {
		if x.alive&(1<<i) == 0 {
			continue
		}
		rest := reply[x.off:]
		if len(data) >= len(rest) {
			if bytes.Equal(data[:len(rest)], rest) {
				x.exchange = nil
				return len(rest), i, answered
			}
		} else if bytes.Equal(data, rest[:len(data)]) {
			left |= 1 << i
		}
	}
	if left == 0 {
		return 0, 0, wrong
	}
	x.alive = left
	x.off += len(data)
	return len(data), 0, moreToCome
}

// came returns the bytes of the reply that have arrived so far.
func (x *expectation) came() string {
	for i, reply := range x.exchange.accept {
		if x.alive&(1<<i) != 0 {
			return string(reply[:x.off])
		}
	}
	return ""
}

// violation describes what is wrong with the outstanding reply, of which data arrived last.
func (x *expectation) violation(connection int, what string, data []byte) *Violation {
	v := &Violation{Connection: connection, What: what, Came: string(data)}
	if x.exchange != nil {
		v.Sent = string(x.exchange.request)
		v.Came = x.came() + v.Came
		for _, a := range x.exchange.accept {
			v.Want = append(v.Want, string(a))
		}
	}
	return v
}
