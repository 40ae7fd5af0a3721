package takeover

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"strings"
	"time"

	"dreadlock/server/fleet"
)

// Format is the version of what the two processes say to each other, with the estate. What is only added, and can be missing, does
// not change it: gob skips fields that it does not know, and leaves those alone that have not come.
const Format = 1

// step says what a message is. The number never changes its meaning, whatever the [Format].
type step byte

const (
	stepHello       step = 1  // predecessor: who it is and what it will hand over
	stepDescriptors step = 2  // predecessor: up to maxDescriptors of those that it has announced
	stepPrepared    step = 3  // successor: it could take over now
	stepRefused     step = 4  // successor: it will not, and ends
	stepEstate      step = 5  // predecessor: everything, as of now
	stepReady       step = 6  // successor: it has everything, and waits
	stepCommit      step = 7  // predecessor: it will serve nobody any more
	stepAck         step = 8  // successor: it serves from now on
	stepAbort       step = 9  // predecessor: it goes on itself
	stepLeft        step = 10 // predecessor: nothing is open any more but what was handed over
)

var stepNames = map[step]string{
	stepHello: "hello", stepDescriptors: "descriptors", stepPrepared: "prepared", stepRefused: "refused", stepEstate: "estate",
	stepReady: "ready", stepCommit: "commit", stepAck: "ack", stepAbort: "abort",
	stepLeft: "left",
}

// String returns the name of the step.
func (s step) String() string {
	if name := stepNames[s]; name != "" {
		return name
	}
	return fmt.Sprintf("step %d", byte(s))
}

// Hello is what the predecessor says first.
type Hello struct {
	Format  int
	Version string // of the program
	PID     int
	// Start is the predecessor's time 0, on CLOCK_MONOTONIC. The successor counts time from there as well, so that durations mean the
	// same in both.
	Start time.Duration
	// KeepAlive is the silence after which the predecessor's clients are probed.
	KeepAlive time.Duration
	// Loops and Connections are how many there are now. Connections come and go until everything stands still.
	Loops       int
	Connections int
	// Listeners are the keys of the listeners that are passed, in the order of their descriptors: see [Listener].
	Listeners []string
	// Locks says, for each of them, whether the descriptor of a lock file follows.
	Locks []bool
	// Fleet is what the store of the predecessor's fleet says, nil without one.
	Fleet *fleet.Greeting
}

// Prepared is what the successor says when it could take over.
type Prepared struct {
	Room    int    // connections that it has room for
	Version string // of the program
}

// Estate announces the estate: the memory file comes with it, and the descriptors follow.
type Estate struct {
	Size        int64 // of what is in the memory file
	Descriptors int
	// Since is when the predecessor has stopped to answer its clients, from [Hello.Start] on.
	Since time.Duration
	// Closed is the number of connections that do not go over: they are closed.
	Closed int
}

// reason is the body of a refusal and of an abort.
type reason struct{ Text string }

// maxReason is what is said of a reason at most, in bytes: it must not be too long for a message.
const maxReason = 4 << 10

func newReason(why error) reason {
	text := why.Error()
	return reason{strings.ToValidUTF8(text[:min(len(text), maxReason)], "")}
}

// verified is the body of ready.
type verified struct{ Digest []byte }

// message is one packet. Who has received it owns its descriptors.
type message struct {
	step        step
	body        []byte
	descriptors []int
}

// encode returns the packet of a step. The body is nil if the step says everything.
func encode(s step, body any) ([]byte, error) {
	var packet bytes.Buffer
	packet.WriteByte(byte(s))
	if body != nil {
		if err := gob.NewEncoder(&packet).Encode(body); err != nil {
			return nil, err
		}
	}
	if packet.Len() > maxPacket {
		return nil, fmt.Errorf("%s: %d bytes are too many for a message", s, packet.Len())
	}
	return packet.Bytes(), nil
}

// decode reads the body.
func (m *message) decode(body any) error {
	if err := gob.NewDecoder(bytes.NewReader(m.body)).Decode(body); err != nil {
		return fmt.Errorf("%s: not understood: %w", m.step, err)
	}
	return nil
}
