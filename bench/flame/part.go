package flame

import "strings"

// Part is what a function belongs to.
type Part int

// The parts.
const (
	Library Part = iota // it does its work for whoever calls it, and is charged to that
	Kernel
	Gnet
	Reactor
	Session
	Locks
	Parser
	TLS
	Runtime
	Rest

	parts
)

// String describes the part for a reader of the table.
func (p Part) String() string {
	return [parts]string{
		Library: "libraries",
		Kernel:  "kernel",
		Gnet:    "gnet",
		Reactor: "loops, mailboxes, wheel",
		Session: "sessions",
		Locks:   "lock table",
		Parser:  "parser",
		TLS:     "TLS",
		Runtime: "Go runtime",
		Rest:    "all else",
	}[p]
}

// packages says which part a package with all below it belongs to: the first that fits.
var packages = []struct {
	path string
	part Part
}{
	{"dreadlock/proto", Parser},
	{"dreadlock/lockmgr", Locks},
	{"dreadlock/reactor", Reactor},
	{"dreadlock/server/admin", Rest},
	{"dreadlock/server/api", Rest},
	{"dreadlock/server/noise", Rest},
	{"dreadlock/server", Session},
	{"dreadlock", Rest},
	{"main", Rest},
	{"github.com/panjf2000/gnet", Gnet},
	{"crypto", TLS},
	{"golang.org/x/crypto", TLS},
	{"runtime", Runtime},
	{"internal/runtime", Runtime},
}

// PartOf returns the part that a function of the program belongs to, by its name with the path of its package.
func PartOf(function string) Part {
	for _, p := range packages {
		if rest, ok := strings.CutPrefix(function, p.path); ok && (rest == "" || rest[0] == '/' || rest[0] == '.') {
			return p.part
		}
	}
	if !strings.ContainsAny(function, "./") {
		return Runtime // in assembler, such as memeqbody
	}
	return Library
}

// charged returns the part to which the time of a stack is charged.
func (s *Stack) charged() Part {
	for i := len(s.Frames) - 1; i >= 0; i-- {
		if part := s.Frames[i].Part; part != Library {
			return part
		}
	}
	return Rest
}

// systemCall returns the system call that the stack is in; empty if it is in none.
func (s *Stack) systemCall() string {
	for _, f := range s.Frames {
		if f.Part == Kernel {
			return f.Name
		}
	}
	return ""
}
