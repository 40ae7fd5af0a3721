package flame

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// kernelSpace is where the addresses of the kernel begin.
const kernelSpace = 1 << 63

// ReadPerf reads what "perf script -F ip,sym --no-inline" prints of a recording with so many samples per second of processor time. The
// error wraps [ErrProfile].
func ReadPerf(in io.Reader, perSecond int) (*Profile, error) {
	p := &Profile{}
	var program, kernel []string
	end := func() {
		p.add(program, kernel, time.Second/time.Duration(perSecond))
		program, kernel = nil, nil
	}
	lines := bufio.NewScanner(in)
	const longest = 1 << 20 // of the names of generic functions
	lines.Buffer(nil, longest)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			end()
			continue
		}
		address, name, _ := strings.Cut(line, " ")
		at, err := strconv.ParseUint(address, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: want an address and a name: %q", ErrProfile, line)
		}
		if at >= kernelSpace {
			kernel = append(kernel, name)
		} else {
			program = append(program, strings.TrimSuffix(name, ".abi0"))
		}
	}
	end()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProfile, err)
	}
	return p, p.check()
}
