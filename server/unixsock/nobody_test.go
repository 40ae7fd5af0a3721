package unixsock

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody gives the thread of the test the rights of an ordinary user. The thread ends with the test, as its goroutine
// does not give it back.
func asNobody(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	const nobody = 65534
	// x/sys changes the thread, the standard library all of them.
	if err := unix.Setgroups(nil); err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody); errno != 0 {
		t.Fatal(errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
		t.Fatal(errno)
	}
}
