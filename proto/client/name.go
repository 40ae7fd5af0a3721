package client

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"dreadlock/proto"
)

// DefaultName returns the name of this process's connections, with the name of a command at its end: user@host:pid:command.
// It can be sent: what is not printable ASCII is replaced by "_", and it ends after proto.MaxName bytes. Options.Name is by
// default that of the program itself.
func DefaultName(command string) string {
	return sanitize(process() + ":" + command)
}

// process is the part of the name that stays the same as long as the process lives.
var process = sync.OnceValue(func() string {
	who := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		who = cmp.Or(u.Username, who)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s@%s:%d", who, host, os.Getpid())
})

// ownName is the default of Options.Name.
var ownName = sync.OnceValue(func() string { return DefaultName(filepath.Base(os.Args[0])) })

// sanitize makes a text a name.
func sanitize(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '_'
		}
		return r
	}, text)
	return text[:min(len(text), proto.MaxName)]
}
