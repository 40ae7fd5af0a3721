package main

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// heldVariable tells a dreadlockctl below a command which keys are held around it: see heldKeys.
const heldVariable = "DREADLOCK_HELD"

// heldKeys are the keys that are held by dreadlockctls around this one, the outermost first.
//
// In the environment each is PID/KEY@SERVER/ENDPOINT, with blanks in between. The process says whether that is still so: with
// --orphans=leave a command may outlive the dreadlockctl that ran it, with its environment. It is true as long as the process is
// an ancestor of ours, which a dreadlockctl is for all that it has started.
type heldKeys []heldKey

type heldKey struct {
	pid         int
	key, server string
	endpoint    string // where the key is held, of several daemons
}

// heldAround returns the keys that are held around this process, none if /proc is not mounted.
func heldAround() (all heldKeys) {
	variable := os.Getenv(heldVariable)
	if variable == "" {
		return nil
	}
	above := ancestors()
	for item := range strings.FieldsSeq(variable) {
		process, rest, _ := strings.Cut(item, "/")
		key, place, _ := strings.Cut(rest, "@")
		named, used, _ := strings.Cut(place, "/")
		server, err := url.PathUnescape(named)
		endpoint, _ := url.PathUnescape(used)
		if pid, wrong := strconv.Atoi(process); err == nil && wrong == nil && above[pid] {
			all = append(all, heldKey{pid, key, server, endpoint})
		}
	}
	return all
}

// holder returns the process that holds a key of a server, 0 if none does.
func (h heldKeys) holder(key, server string) int {
	for _, k := range h {
		if k.key == key && sameDaemons(k.server, server) {
			return k.pid
		}
	}
	return 0
}

// endpoint returns where a nested lock is asked for first: at the daemon of the innermost one around it, as the daemons of a
// fleet see only deadlocks of their own. Empty if there is none.
func (h heldKeys) endpoint(server string) string {
	for _, k := range slices.Backward(h) {
		if sameDaemons(k.server, server) {
			return k.endpoint
		}
	}
	return ""
}

// sameDaemons reports whether two values of --server have a daemon in common, and so are one fleet.
func sameDaemons(a, b string) bool {
	these, those := strings.Split(a, ","), strings.Split(b, ",")
	return slices.ContainsFunc(these, func(one string) bool {
		return slices.ContainsFunc(those, func(other string) bool { return strings.TrimSpace(one) == strings.TrimSpace(other) })
	})
}

// String returns the value of the variable.
func (h heldKeys) String() string {
	items := make([]string, len(h))
	for i, k := range h {
		items[i] = fmt.Sprintf("%d/%s@%s/%s", k.pid, k.key, url.PathEscape(k.server), url.PathEscape(k.endpoint))
	}
	return strings.Join(items, " ")
}

// keys returns the keys alone.
func (h heldKeys) keys() string {
	keys := make([]string, len(h))
	for i, k := range h {
		keys[i] = k.key
	}
	return strings.Join(keys, " ")
}

// ancestors returns the processes from our parent up to the first.
func ancestors() map[int]bool {
	all := map[int]bool{}
	for pid := os.Getppid(); pid > 0 && !all[pid]; {
		all[pid] = true
		p, err := procfs.NewProc(pid)
		if err != nil {
			break
		}
		stat, err := p.Stat()
		if err != nil {
			break
		}
		pid = stat.PPID
	}
	return all
}

// surroundings are what the command is told of the lock, so that it can lock another key.
type surroundings struct {
	outer heldKeys // around this one
	owner string
	at    string // the daemon that is used, of several
	token uint64 // of the grant; 0 if the daemon has none
}

// setEnvironment tells the command which keys are held, to whom they belong, the token, and how to reach the daemon.
func (c *lockCommand) setEnvironment(g *globals, e surroundings) error {
	variables, err := g.TLS.environment()
	if err != nil {
		return err
	}
	held := slices.Concat(e.outer, heldKeys{{os.Getpid(), c.Key, g.Server, e.at}})
	variables[heldVariable], variables["DREADLOCK_KEY"] = held.String(), held.keys()
	variables["DREADLOCK_SERVER"], variables[ownerVariable], variables["DREADLOCK_FENCE"] = g.Server, e.owner, ""
	if e.token != 0 {
		variables["DREADLOCK_FENCE"] = strconv.FormatUint(e.token, 10)
	}
	for name, value := range variables {
		if value == "" {
			err = os.Unsetenv(name)
		} else {
			err = os.Setenv(name, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
