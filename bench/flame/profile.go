package flame

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/pprof/profile"
)

// ErrProfile is wrapped by errors about a profile that cannot be used.
var ErrProfile = errors.New("flame: bad profile")

// Profile is the processor time of a process, by stacks.
type Profile struct {
	Stacks []Stack
}

// Stack is a stack that was seen, with the processor time that was spent in its innermost function.
type Stack struct {
	Frames []Frame // from the outermost to the innermost
	Time   time.Duration
}

// Frame is a function of a stack, or a system call.
type Frame struct {
	Name string // with the package's path
	Part Part
}

// Total returns the time of all stacks.
func (p *Profile) Total() (sum time.Duration) {
	for _, s := range p.Stacks {
		sum += s.Time
	}
	return sum
}

// ReadPprof reads a processor profile of the Go runtime, as /debug/pprof/profile serves it. The error wraps [ErrProfile].
func ReadPprof(in io.Reader) (*Profile, error) {
	raw, err := profile.Parse(in)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProfile, err)
	}
	value := slices.IndexFunc(raw.SampleType, func(t *profile.ValueType) bool { return t.Type == "cpu" && t.Unit == "nanoseconds" })
	if value < 0 {
		return nil, fmt.Errorf("%w: it is not one of processor time", ErrProfile)
	}
	p := &Profile{}
	for _, sample := range raw.Sample {
		var names []string // from the innermost
		for _, location := range sample.Location {
			for _, line := range location.Line {
				if line.Function != nil {
					names = append(names, line.Function.Name)
				}
			}
		}
		p.add(names, nil, time.Duration(sample.Value[value]))
	}
	return p, p.check()
}

// add adds a sample: functions of the program and of the kernel, both from the innermost.
func (p *Profile) add(program, kernel []string, spent time.Duration) {
	call, program, kernel := systemCall(program, kernel)
	var s Stack
	for _, name := range slices.Backward(program) {
		if n := len(s.Frames); goexit[name] || n > 0 && s.Frames[n-1].Name == name {
			continue // a wrapper between two calling conventions has the same name
		}
		s.Frames = append(s.Frames, Frame{name, PartOf(name)})
	}
	if call != "" {
		s.Frames = append(s.Frames, Frame{call, Kernel})
	}
	for _, name := range slices.Backward(kernel) {
		s.Frames = append(s.Frames, Frame{name, Kernel})
	}
	if len(s.Frames) > 0 && spent > 0 {
		s.Time = spent
		p.Stacks = append(p.Stacks, s)
	}
}

// goexit has the function that every goroutine begins with.
var goexit = map[string]bool{"runtime.goexit": true}

func (p *Profile) check() error {
	if p.Total() == 0 {
		return fmt.Errorf("%w: the process used no processor time meanwhile", ErrProfile)
	}
	return nil
}
