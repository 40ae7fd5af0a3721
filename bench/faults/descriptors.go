package faults

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func descriptorCases() []*Case {
	return []*Case{{
		Name:    "descriptors-lowered",
		Fault:   "the limit on open files of the running daemon is lowered to 3",
		Promise: "who is connected does not notice; who comes is served when it is raised",
		run:     testDescriptorsLowered,
	}, {
		Name:    "descriptors-flood",
		Fault:   "600 clients come at a limit of 200 open files",
		Promise: "who is connected does not notice; the others are told so",
		run:     testDescriptorsFlood,
	}}
}

// testDescriptorsLowered takes the descriptors away from a running daemon, and gives them back.
func testDescriptorsLowered(t *trial) string {
	l := t.newLab(0, "--loops", "2")
	const clients = 30
	all := make([]*client, clients)
	for i := range all {
		all[i] = l.dial(l.near)
		all[i].mustLock(fmt.Sprintf("own%d", i))
	}
	pid := l.daemon.pid()
	var before unix.Rlimit
	t.must(unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before))
	t.must(unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}, nil))
	newcomers := make([]*client, 10)
	for i := range newcomers {
		newcomers[i] = l.dial(l.near)
		newcomers[i].send(command(lock, "own0", time.Hour))
	}
	began := time.Now()
	for time.Since(began) < 2*time.Second {
		for i, c := range all {
			c.exercise(i)
		}
	}
	t.must(unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil))
	raised := time.Now()
	all[0].unlock("own0")
	t.parallel(len(newcomers), func(i int) { // in whatever order they were accepted
		newcomers[i].want(locked)
		newcomers[i].close()
	})
	return fmt.Sprintf("all served %s after it is raised", milliseconds(time.Since(raised)))
}

// testDescriptorsFlood has more clients come than there are descriptors.
func testDescriptorsFlood(t *trial) string {
	const limit = 200
	l := t.newLabBy([]string{"sh", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(limit)}, 0, "--loops", "2")
	var served []*client
	for i := range 20 {
		c := l.dial(l.near)
		c.mustLock(fmt.Sprintf("own%d", i))
		served = append(served, c)
	}
	refused := make([]bool, 3*limit)
	l.unrecorded = true
	t.parallel(len(refused)+1, func(i int) {
		if i == len(refused) {
			for n, c := range served {
				c.exercise(n)
			}
			return
		}
		conn, err := l.near(t.ctx)
		t.must(err)
		defer conn.Close() //nolint:errcheck // its end is all that matters
		t.must(conn.SetDeadline(time.Now().Add(patience)))
		if _, err := io.WriteString(conn, fmt.Sprintf("lock flood%d 0\r\n", i)); err != nil {
			return
		}
		answer := make([]byte, 100)
		n, _ := conn.Read(answer)
		switch got := string(answer[:n]); got {
		case "e too many connections\r\n":
			refused[i] = true
		case locked + "\r\n", "":
		default:
			t.violate("a client beyond the limit is answered %q", got)
		}
	})
	n := 0
	for _, r := range refused {
		if r {
			n++
		}
	}
	if n == 0 {
		t.violate("no client was refused with an answer")
	}
	return fmt.Sprintf("%d of %d refused with an answer", n, len(refused))
}
