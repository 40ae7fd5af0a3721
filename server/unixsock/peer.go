package unixsock

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Peer returns the user and the process at the other end of a connection, as in "uid 1000 pid 4711": those that opened it. It is
// empty if the connection does not belong to a Unix socket.
func Peer(conn net.Conn) string {
	sc, ok := conn.(syscall.Conn)
	if !ok || conn.LocalAddr().Network() != "unix" {
		return ""
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if failed := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); failed != nil || err != nil {
		return ""
	}
	if cred.Pid == 0 { // in a namespace that is not seen from here
		return fmt.Sprintf("uid %d", cred.Uid)
	}
	return fmt.Sprintf("uid %d pid %d", cred.Uid, cred.Pid)
}
