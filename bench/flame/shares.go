package flame

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// least is the share of the whole from which a system call has a line of its own in the table.
const least = 0.005

// Share is a part of the time.
type Share struct {
	Name string
	Part Part
	// Call says that it is one of the system calls that the part Kernel consists of.
	Call bool
	Time time.Duration
}

// Shares returns the time of each part, and after the kernel that of its system calls; those that hardly take any are one. Parts and
// system calls come in the order of their time. TLS and all else are there only if they have any.
func (p *Profile) Shares() (shares []Share) {
	byPart := map[Part]time.Duration{Kernel: 0, Gnet: 0, Reactor: 0, Session: 0, Locks: 0, Parser: 0, Runtime: 0}
	byCall := make(map[string]time.Duration)
	for i := range p.Stacks {
		s := &p.Stacks[i]
		part := s.charged()
		byPart[part] += s.Time
		if part == Kernel {
			byCall[s.systemCall()] += s.Time
		}
	}
	const others = "others"
	for name, spent := range byCall {
		if float64(spent) < least*float64(p.Total()) {
			delete(byCall, name)
			byCall[others] += spent
		}
	}
	for part, spent := range byPart {
		shares = append(shares, Share{Name: part.String(), Part: part, Time: spent})
	}
	for name, spent := range byCall {
		shares = append(shares, Share{Name: name, Part: Kernel, Call: true, Time: spent})
	}
	slices.SortFunc(shares, func(a, b Share) int {
		return cmp.Or(
			cmp.Compare(byPart[b.Part], byPart[a.Part]), cmp.Compare(a.Part, b.Part),
			cmp.Compare(order(a), order(b)), cmp.Compare(b.Time, a.Time), cmp.Compare(a.Name, b.Name),
		)
	})
	return shares
}

// order puts a part before its system calls, and those without a name last.
func order(s Share) int {
	switch {
	case !s.Call:
		return 0
	case s.Name == "others":
		return 2
	}
	return 1
}

// WriteShares prints a table of shares of the total. With the processor time of an operation, it has a column with that of each share.
func WriteShares(out io.Writer, shares []Share, total, operation time.Duration) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(name, share, each string) {
		fmt.Fprintf(t, "%s\t%s\t", share, each) //nolint:errcheck // the flush at the end returns the error
		fmt.Fprintf(t, "  %s\n", name)          //nolint:errcheck // as above
	}
	each := func(part float64) string {
		if operation == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f us", part*float64(operation)/float64(time.Microsecond))
	}
	for _, s := range shares {
		part := float64(s.Time) / float64(total)
		name := s.Name
		if s.Call {
			name = "  of which " + name
		}
		line(name, fmt.Sprintf("%.1f %%", 100*part), each(part))
	}
	return t.Flush()
}
