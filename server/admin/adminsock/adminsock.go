// Package adminsock says where the socket of the admin interface is that a daemon opens without being told to: the daemon
// makes it there, and dreadlockctl looks there.
//
//	$RUNTIME_DIRECTORY           what systemd has made for the service (RuntimeDirectory=)
//	/run/dreadlock               root makes it
//	$XDG_RUNTIME_DIR/dreadlock   for a daemon that runs in the session of a user
//	$TMPDIR/dreadlock-UID        for one of a user without a session, as under su or in a container; by default in /tmp
//
// Anybody can make the last one, so it counts only if it belongs to the user and to nobody else. The first directory that can be
// written is taken. The socket is named after the port of the daemon, so that daemons on different ports do not meet:
// admin-6001.sock. A daemon without a port has admin.sock. Only its user and root may connect.
package adminsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"dreadlock/server/unixsock"
)

// mode lets the daemon's user and root connect, and nobody else: whoever may connect needs no token.
const mode = 0o600

// directory is a directory for sockets.
type directory struct {
	path   string
	create fs.FileMode // with which it is made if it is missing; 0 if somebody else makes it
	shared bool        // it lies where everybody may make files
}

// directories returns where to look, in order, without duplicates.
func directories(getenv func(string) string) (all []directory) {
	add := func(path string, create fs.FileMode, shared bool) {
		if filepath.IsAbs(path) && !slices.ContainsFunc(all, func(d directory) bool { return d.path == filepath.Clean(path) }) {
			all = append(all, directory{filepath.Clean(path), create, shared})
		}
	}
	for _, path := range strings.Split(getenv("RUNTIME_DIRECTORY"), ":") {
		add(path, 0, false)
	}
	add("/run/dreadlock", 0o755, false)
	if session := getenv("XDG_RUNTIME_DIR"); session != "" {
		add(session+"/dreadlock", 0o700, false)
	}
	temporary := getenv("TMPDIR")
	if temporary == "" {
		temporary = "/tmp"
	}
	add(fmt.Sprintf("%s/dreadlock-%d", temporary, os.Geteuid()), 0o700, true)
	return all
}

// Directories returns the directories of this process, in the order in which they are tried.
func Directories() (paths []string) {
	for _, d := range directories(os.Getenv) {
		paths = append(paths, d.path)
	}
	return paths
}

// Listen opens the socket of a daemon with a port, 0 for none, in the first directory that can be written. The error says
// for each directory why it is not that one. Where another process listens on the socket, no other directory is tried.
func Listen(port int) (*unixsock.Listener, error) { return listen(directories(os.Getenv), port) }

func listen(directories []directory, port int) (*unixsock.Listener, error) {
	var reasons []string
	for _, d := range directories {
		l, err := d.listen(port)
		if err == nil {
			return l, nil
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
		reasons = append(reasons, err.Error())
	}
	return nil, errors.New(strings.Join(reasons, "; "))
}

func (d *directory) listen(port int) (*unixsock.Listener, error) {
	if d.create != 0 {
		if err := os.Mkdir(d.path, d.create); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d.address(port).Listen()
}

// check refuses a directory that another user may have made, to be taken for the daemon or for its client.
func (d *directory) check() error {
	if !d.shared {
		return nil
	}
	info, err := os.Lstat(d.path)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a directory of this user alone: remove it, or set its owner and mode 0700", d.path)
	}
	return nil
}

// address returns where the socket of a daemon with a port is, 0 for none.
func (d *directory) address(port int) unixsock.Address {
	return unixsock.Address{Path: filepath.Join(d.path, name(port)), Mode: mode}
}

// Addresses returns where the socket of a daemon with a port may be, 0 for none, in the order in which [Listen] tries.
func Addresses(port int) (all []unixsock.Address) {
	for _, d := range directories(os.Getenv) {
		all = append(all, d.address(port))
	}
	return all
}

// name returns the name of the socket of a daemon with a port, 0 for none.
func name(port int) string {
	if port == 0 {
		return "admin.sock"
	}
	return fmt.Sprintf("admin-%d.sock", port)
}

// portOf returns the port in the name of a socket; it is 0 for a daemon without a port.
func portOf(name string) (port int, ok bool) {
	if name == "admin.sock" {
		return 0, true
	}
	digits, prefixed := strings.CutPrefix(name, "admin-")
	digits, suffixed := strings.CutSuffix(digits, ".sock")
	port, err := strconv.Atoi(digits)
	return port, prefixed && suffixed && err == nil && 0 < port && port < 1<<16
}

// Socket is a socket that was found.
type Socket struct {
	Path string
	Port int // 0 if the daemon has none
	// Denied is nil if a daemon listens and this user may connect. Otherwise it says why this user cannot tell.
	Denied error
}

// Find returns the sockets of the daemons of this machine, in the order of the directories and of the ports. Sockets that
// dead daemons have left are not among them.
func Find() []Socket { return find(directories(os.Getenv)) }

func find(directories []directory) (found []Socket) {
	for _, d := range directories {
		if d.check() != nil {
			continue
		}
		entries, err := os.ReadDir(d.path)
		if err != nil {
			continue // missing, or another user's
		}
		var here []Socket
		for _, entry := range entries {
			port, ok := portOf(entry.Name())
			if !ok {
				continue
			}
			path := filepath.Join(d.path, entry.Name())
			conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
			switch {
			case err == nil:
				_ = conn.Close()
				here = append(here, Socket{Path: path, Port: port})
			case errors.Is(err, syscall.EAGAIN): // it is busy
				here = append(here, Socket{Path: path, Port: port})
			case errors.Is(err, fs.ErrPermission):
				here = append(here, Socket{Path: path, Port: port, Denied: err})
			}
		}
		slices.SortFunc(here, func(a, b Socket) int { return a.Port - b.Port })
		found = append(found, here...)
	}
	return found
}
