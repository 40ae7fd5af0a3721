package takeover

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// NewMemory returns a file without a name, in memory, for the estate. The successor reads it from its begin.
func NewMemory() (*os.File, error) {
	const name = "dreadlock-estate"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memory for the estate: %w", os.NewSyscallError("memfd_create", err))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readMemory returns so many bytes of the begin of such a file.
func readMemory(fd int, size int64) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if size < 0 || size > st.Size { // or it would be made as large as somebody says
		return nil, fmt.Errorf("%d bytes were announced, and %d are there", size, st.Size)
	}
	content := make([]byte, size)
	for n := 0; n < len(content); {
		m, err := unix.Pread(fd, content[n:], int64(n))
		if m <= 0 {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
		n += m
	}
	return content, nil
}
