package bench

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Variant is another way to run our daemon, measured beside the ordinary one: another build, other options, another
// environment.
type Variant struct {
	Name        string   // in tables, followed by the number of loops
	Environment []string // NAME=VALUE, added to ours
	Program     string   // absolute; empty for that of the ordinary daemon
	Options     []string // added to those that every daemon gets
}

var (
	variantName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)
	environment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
)

// ParseVariant parses NAME=COMMAND. The command may begin with variables and may omit the program. These are variants:
// old=/tmp/dreadlock, slow=--tick 50ms, procs=GOMAXPROCS=4 /tmp/dreadlock --tick 1ms.
func ParseVariant(text string) (*Variant, error) {
	bad := func(reason string) error {
		return fmt.Errorf("%w: variant %s: %s", ErrTarget, text, reason)
	}
	name, command, _ := strings.Cut(text, "=")
	if !variantName.MatchString(name) || slices.Contains(peerKinds, name) {
		return nil, bad("want NAME=COMMAND, where NAME is not the name of a server")
	}
	words := strings.Fields(command)
	if len(words) == 0 {
		return nil, bad("the command is empty")
	}
	v := &Variant{Name: name}
	for len(words) > 0 && environment.MatchString(words[0]) {
		v.Environment, words = append(v.Environment, words[0]), words[1:]
	}
	if len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		program, err := exec.LookPath(words[0])
		if err != nil {
			return nil, fmt.Errorf("%w: variant %s: %w", ErrTarget, text, err)
		}
		if v.Program, err = filepath.Abs(program); err != nil {
			return nil, err
		}
		words = words[1:]
	}
	v.Options = words
	return v, nil
}

// AddVariants returns the cases with all variants added after each daemon, with the same way and as many loops.
func AddVariants(cases []Case, variants []*Variant) []Case {
	cases = slices.Clone(cases)
	for i := range cases {
		var peers []Peer
		for _, p := range cases[i].Peers {
			peers = append(peers, p)
			if p.Kind != Daemon || p.Target != nil {
				continue
			}
			for _, v := range variants {
				peers = append(peers, Peer{Kind: Daemon, Way: p.Way, Loops: p.Loops, Variant: v})
			}
		}
		cases[i].Peers = peers
	}
	return cases
}
