package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The two processes of a takeover talk over a pair of sockets. Between stands between them: it carries their messages, with the descriptors
// in them, and does something at one of these. So each step of a takeover is hit exactly.
//
//	predecessor ═══ relay ═══ successor
//	                  └ kills, stops, cuts ...

// takeoverFD is the variable by which a successor is told its end of the pair.
const takeoverFD = "DREADLOCK_TAKEOVER_FD"

// The sides of a takeover.
const (
	predecessor = "predecessor"
	successor   = "successor"
)

// What is done at a message, before it is carried on.
const (
	doNothing = "nothing"
	doKill    = "kill"   // a side
	doStop    = "stop"   // a side, with SIGSTOP
	doHang    = "hang"   // neither this nor a later message of either side is carried on
	doCut     = "cut"    // both sides see the end of the other one
	doGarble  = "garble" // its bytes are changed
	doRepeat  = "repeat" // it is carried on twice
	doStrip   = "strip"  // its descriptors are left out
)

// acts is the line in the log of a relay that does what its plan says.
const acts = "acts"

// plan says what is done at which message.
type plan struct {
	From string `json:"from"` // the side that sends the message
	Nth  int    `json:"nth"`  // of its messages, from 1
	Do   string `json:"do"`
	To   string `json:"to"`  // the side that is killed or stopped
	Log  string `json:"log"` // a file in which each message is a line
}

// Between runs a successor for a predecessor that has just started this process, with the relay between them. The program takes the
// place of this process, under the name that it would have. Without a predecessor it is just run.
func Between(self []string, planText, name, program string, args []string) error {
	if text, ok := os.LookupEnv(takeoverFD); ok {
		fd, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		used, err := interpose(self, planText, fd)
		if err != nil {
			return fmt.Errorf("begin the relay: %w", err)
		}
		defer runtime.KeepAlive(used) // else its collection closes descriptors
	}
	return syscall.Exec(program, append([]string{name}, args...), os.Environ()) //nolint:gosec // it is for tests
}

// interpose starts the relay with a descriptor that leads to the predecessor, and replaces that by one that leads to the relay.
func interpose(self []string, planText string, fd int) (*exec.Cmd, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	args := append(append([]string{}, self...), planText, strconv.Itoa(os.Getppid()), strconv.Itoa(os.Getpid()))
	relay := exec.Command(args[0], args[1:]...) //nolint:noctx,gosec // it ends with the two sides
	handOver := os.NewFile(uintptr(ends[1]), "hand-over")
	relay.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "pair"), handOver}
	if err := relay.Start(); err != nil {
		return nil, err
	}
	_ = handOver.Close()
	// The relay makes its own pair, so that it is the one at the other end, as the kernel knows it.
	inner, err := receive(ends[0])
	if err == nil && len(inner.fds) != 1 {
		err = errors.New("it has ended")
	}
	if err != nil {
		return nil, err
	}
	return relay, unix.Dup3(inner.fds[0], fd, 0)
}

// message is one message of the pair.
type message struct {
	text []byte
	fds  []int
}

const (
	largestMessage = 1 << 20
	mostFDs        = 253 // that the kernel takes in a message
)

// receive waits for a message. Its text is empty at the end.
func receive(fd int) (*message, error) {
	text, oob := make([]byte, largestMessage), make([]byte, unix.CmsgSpace(4*mostFDs))
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, text, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m := &message{text: text[:n]}
		control, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return nil, err
		}
		for i := range control {
			if control[i].Header.Type != unix.SCM_RIGHTS {
				continue
			}
			fds, err := unix.ParseUnixRights(&control[i])
			if err != nil {
				return nil, err
			}
			m.fds = append(m.fds, fds...)
		}
		return m, nil
	}
}

// send sends it on.
func (m *message) send(fd int) error {
	var oob []byte
	if len(m.fds) > 0 {
		oob = unix.UnixRights(m.fds...)
	}
	for {
		err := unix.Sendmsg(fd, m.text, oob, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// relay carries the messages of a takeover.
type relay struct {
	plan
	mu   sync.Mutex // held while a message is carried on
	seen map[string]int
	fds  map[string]int
	pids map[string]int
	log  *os.File
}

// CarryTakeover is the process of the relay. Its descriptors 3 and 4 lead to the predecessor and to the process that becomes the successor.
func CarryTakeover(planText, predecessorPID, successorPID string) error {
	r := &relay{seen: map[string]int{}, fds: map[string]int{predecessor: 3}, pids: map[string]int{}}
	err := json.Unmarshal([]byte(planText), &r.plan)
	if err != nil {
		return err
	}
	if r.pids[predecessor], err = strconv.Atoi(predecessorPID); err != nil {
		return err
	}
	if r.pids[successor], err = strconv.Atoi(successorPID); err != nil {
		return err
	}
	if r.log, err = os.OpenFile(r.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	const handOver = 4
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.fds[successor] = ends[0]
	if err := (&message{text: []byte{0}, fds: ends[1:]}).send(handOver); err != nil {
		return err
	}
	_ = unix.Close(ends[1]) // only the successor has it
	_ = unix.Close(handOver)
	var running sync.WaitGroup
	running.Go(func() { r.carry(predecessor, successor) })
	running.Go(func() { r.carry(successor, predecessor) })
	running.Wait()
	return nil
}

// carry carries the messages of one side, until it ends. Then the other side sees its end.
func (r *relay) carry(from, to string) {
	for {
		m, err := receive(r.fds[from])
		r.mu.Lock()
		if err != nil || len(m.text) == 0 {
			fmt.Fprintf(r.log, "%s ends\n", from) //nolint:errcheck // the log is for people
			_ = unix.Shutdown(r.fds[to], unix.SHUT_RDWR)
			r.mu.Unlock()
			return
		}
		r.seen[from]++
		fmt.Fprintf(r.log, "%s %d %d %d\n", from, r.seen[from], len(m.text), len(m.fds)) //nolint:errcheck // as above
		if from == r.From && r.seen[from] == r.Nth {
			fmt.Fprintln(r.log, acts) //nolint:errcheck // as above
			r.act(m, to)
		}
		_ = m.send(r.fds[to]) // it may have ended
		for _, fd := range m.fds {
			_ = unix.Close(fd)
		}
		r.mu.Unlock()
	}
}

// act does what the plan says with a message that is about to be carried on.
func (r *relay) act(m *message, to string) {
	switch r.Do {
	case doKill:
		_ = unix.Kill(r.pids[r.To], unix.SIGKILL)
		awaitState(r.pids[r.To], "ZX")
	case doStop:
		_ = unix.Kill(r.pids[r.To], unix.SIGSTOP)
		awaitState(r.pids[r.To], "T")
	case doHang:
		for { // until the successor has ended, or the case does
			time.Sleep(time.Second) //nolint:forbidigo // there is no event to wait for: the sockets must stay as they are
			if unix.Kill(r.pids[successor], 0) != nil {
				os.Exit(0)
			}
		}
	case doCut:
		for _, fd := range r.fds {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		}
	case doGarble:
		for i := range m.text {
			m.text[i] ^= 0x55
		}
	case doRepeat:
		_ = m.send(r.fds[to])
	case doStrip:
		for _, fd := range m.fds {
			_ = unix.Close(fd)
		}
		m.fds = nil
	}
}

// awaitState returns when a process is in one of the states, or gone.
func awaitState(pid int, states string) {
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
		if fields := strings.Fields(rest); len(fields) > 0 && strings.Contains(states, fields[0]) {
			return
		}
		time.Sleep(100 * time.Microsecond) //nolint:forbidigo // the kernel tells nobody
	}
}
