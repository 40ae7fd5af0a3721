package bench

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// Machine describes the machine on which something was measured.
type Machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`   // that this process may use
	Memory     int64  `json:"memory_bytes"` // of the machine; 0 if unknown
	Kernel     string `json:"kernel"`
	Go         string `json:"go"` // version of Go that the generator and the echo servers were built with
}

// ThisMachine describes this machine. What is unknown stays empty.
func ThisMachine() Machine {
	m := Machine{
		Processor:  cpuModel(),
		Processors: processors,
		Go:         runtime.Version(),
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	return m
}

// String describes the machine in one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d processors, %s memory, %s, %s",
		m.Processor, m.Processors, humanize.IBytes(uint64(max(0, m.Memory))), m.Kernel, m.Go)
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
