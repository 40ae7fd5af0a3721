package server

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"dreadlock/lockmgr"
)

// TestStories runs the stories in testdata/stories on two loops. A key is named with its loop: x/0. The commands:
//
//	connect a 0     client a comes to loop 0
//	send a          a sends the lines that follow; its loop reads them
//	receive 1       loop 1 takes the oldest message of its mailbox
//	expire 1        loop 1 takes the first timer that is due
//	settle          all loops work until nothing is left to do
//	time 100ms      time passes, and nothing happens in it
//	half-close a    a ends its side, as nc -N does
//	close a, reset a
//	deaf a, hear a  a reads no answers; reads them again
//	kick a          an operator kicks a
//	drain 0         loop 0 learns that the server drains, or looks again who is left
//	memory 102      others take so many percent of the memory
//	delay 10s       first of all: the server has a lock delay
//	show            every key that is held or rests, with its queue
//
// What is printed is what the clients have read since the last command.
func TestStories(t *testing.T) {
	paths, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			st := &story{sim: newSim(2, 3), keys: make(map[string]string)}
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				out := st.run(t, d)
				if err := st.sim.check(); err != nil {
					d.Fatalf(t, "%v", err)
				}
				if d.Cmd == "settle" {
					if err := st.sim.checkQuiet(); err != nil {
						d.Fatalf(t, "%v", err)
					}
				}
				return out
			})
		})
	}
}

type story struct {
	sim  *sim
	keys map[string]string // by the names of the story
}

func (st *story) run(t *testing.T, d *datadriven.TestData) string {
	var name string
	if len(d.CmdArgs) > 0 {
		name = d.CmdArgs[0].Key
	}
	loop := func(i int) *simLoop {
		var n int
		if _, err := fmt.Sscan(d.CmdArgs[i].Key, &n); err != nil {
			d.Fatalf(t, "%v", err)
		}
		return st.sim.loops[n]
	}
	switch d.Cmd {
	case "delay":
		delay, err := time.ParseDuration(name)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		st.sim = newDelayedSim(2, 3, delay)
	case "connect":
		if st.sim.connect(name, loop(1).index) == nil {
			return "refused"
		}
	case "send":
		st.client(t, d, name).send(st.spell(d.Input))
	case "receive":
		if !loop(0).receive() {
			d.Fatalf(t, "no message")
		}
	case "expire":
		if !loop(0).expire() {
			d.Fatalf(t, "no timer is due")
		}
	case "settle":
		st.sim.settle()
	case "memory":
		percent, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		st.sim.fillMemory(percent)
	case "time":
		passed, err := time.ParseDuration(name)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		st.sim.pass(passed)
	case "half-close", "close":
		c := st.client(t, d, name)
		c.closeWrite()
		c.ended = c.ended || d.Cmd == "close"
	case "reset":
		st.client(t, d, name).reset()
	case "deaf":
		st.client(t, d, name).deaf = true
	case "hear":
		st.client(t, d, name).hear()
	case "kick":
		c := st.client(t, d, name)
		c.kick()
	case "drain":
		l := loop(0)
		var found holders
		l.turn(func() {
			for l.worker.shard.drain(&found) {
			}
		})
		return st.heard() + fmt.Sprintf("busy: %d, keys: %d, waiters: %d", found.busy, found.keys, found.waiters)
	case "show":
		return st.show()
	default:
		d.Fatalf(t, "no such command")
	}
	return st.heard()
}

func (st *story) client(t *testing.T, d *datadriven.TestData, name string) *simClient {
	for _, c := range st.sim.clients {
		if c.name == name {
			return c
		}
	}
	d.Fatalf(t, "there is no client %s", name)
	return nil
}

// spell replaces the names of keys and ends the lines as the protocol wants it.
func (st *story) spell(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		for i, word := range words {
			if prefix, loop, found := strings.Cut(word, "/"); found {
				if st.keys[word] == "" {
					st.keys[word] = st.sim.key(prefix, int(loop[0]-'0'))
				}
				words[i] = st.keys[word]
			}
		}
		out.WriteString(strings.Join(words, " ") + "\r\n")
	}
	return out.String()
}

// heard prints what the clients have read, and who has found the connection gone.
func (st *story) heard() string {
	var out strings.Builder
	for _, e := range st.sim.events {
		switch {
		case e.line == "":
			fmt.Fprintf(&out, "%s is gone\n", e.client.name)
		case strings.HasPrefix(e.line, "f "):
			fmt.Fprintf(&out, "%s: f ...\n", e.client.name)
		default:
			fmt.Fprintf(&out, "%s: %s\n", e.client.name, e.line)
		}
	}
	st.sim.events = nil
	return out.String()
}

// show prints the held keys.
func (st *story) show() string {
	var lines []string
	for _, l := range st.sim.loops {
		l.worker.shard.table.Walk(0, 1<<20, func(h lockmgr.Holding) {
			var line bytes.Buffer
			for name, key := range st.keys {
				if key == string(h.Key) {
					fmt.Fprintf(&line, "%s: %s", name, st.nameOf(h.Owner.Tag))
				}
			}
			if h.Closed && l.sim.now < h.Until {
				fmt.Fprintf(&line, " until %s", h.Until)
			}
			for w := h.First; w != nil; w = w.Next() {
				if w == h.First {
					line.WriteString(" <-")
				}
				fmt.Fprintf(&line, " %s", st.nameOf(w.Tag.(*request).session))
			}
			lines = append(lines, line.String())
		})
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (st *story) nameOf(holder any) string {
	for _, c := range st.sim.clients {
		if holder == c.session && c.open {
			return c.name
		}
	}
	return "nobody"
}
