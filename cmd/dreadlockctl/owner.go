package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dreadlock/proto"
	"dreadlock/proto/client"
)

// ownerVariable tells a dreadlockctl below a command to whom the one around it belongs. The daemon takes the connections of one
// owner for one: whoever waits on one of them gives back nothing that the others hold until that wait is over. That is true of
// a dreadlockctl and of those around it, which wait for its end. It is not true of two that run side by side under a third one:
// each can give its key back while the other waits. So at most one at a time belongs to the owner of the one around it, and the
// others have owners of their own.
const ownerVariable = "DREADLOCK_OWNER"

// owner returns to whom the connection of the first wait belongs. Without a dreadlockctl around this one, a script may say so.
func (h heldKeys) owner() (string, error) {
	owner := os.Getenv(ownerVariable)
	switch {
	case owner == "":
		return rand.Text(), nil
	case os.Getenv(heldVariable) != "":
		if pid := h.innermost(); pid == 0 || !claim(pid) {
			return rand.Text(), nil
		}
	}
	if err := proto.ValidOwner(owner); err != nil {
		return "", badOption("%s: %s: want at most %d letters and digits", ownerVariable, unprefixed(err), proto.MaxOwner)
	}
	return owner, nil
}

// innermost returns the process of the dreadlockctl that has set our environment, 0 if it has ended.
func (h heldKeys) innermost() int {
	items := strings.Fields(os.Getenv(heldVariable))
	if len(items) == 0 || len(h) == 0 {
		return 0
	}
	process, _, _ := strings.Cut(items[len(items)-1], "/")
	if pid := h[len(h)-1].pid; strconv.Itoa(pid) == process {
		return pid
	}
	return 0
}

// claim makes this process the only one that belongs to the owner of the process around it, until it ends, and reports whether
// it is. The lock of the kernel is on a file that every process has, which everybody may read, and which needs no cleaning.
func claim(pid int) bool {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/status", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		_ = unix.Close(fd)
		return false
	}
	return true // and fd stays open
}

// connectionName returns the name of the connection: that of the options, or else user@host:pid:command.
func (c *lockCommand) connectionName() (string, error) {
	if c.Name != "" {
		if err := proto.ValidName(c.Name); err != nil {
			return "", badOption("--name: %s: want one word of printable ASCII, at most %d bytes, such as nightly@db1",
				unprefixed(err), proto.MaxName)
		}
		return c.Name, nil
	}
	command := "dreadlockctl"
	switch {
	case c.Shell != nil:
		command = *c.Shell
	case len(c.Command) > 0:
		command = filepath.Base(c.Command[0])
	}
	return client.DefaultName(command), nil
}

// unprefixed returns the text of an error of the protocol without the name of the package.
func unprefixed(err error) string { return strings.TrimPrefix(err.Error(), "proto: ") }
