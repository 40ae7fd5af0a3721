package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"
)

const variablePrefix = "DREADLOCK_"

// othersVariables are those of our names that the daemon does not read: they say to dreadlockctl where it asks and as who, or are set by it
// for the command that it runs, which may be a daemon.
var othersVariables = []string{
	"DREADLOCK_SERVER", "DREADLOCK_NAME", "DREADLOCK_HEARTBEAT", "DREADLOCK_ADMIN", "DREADLOCK_TLS_CA", "DREADLOCK_TLS_CERT", "DREADLOCK_TLS_KEY",
	"DREADLOCK_OWNER", "DREADLOCK_HELD", "DREADLOCK_KEY", "DREADLOCK_FENCE",
}

// serviceLink is a variable that Kubernetes sets in every pod for a service whose name begins with "dreadlock": the address of the
// service. DREADLOCK_PORT is one, too, if its value is a URL.
var serviceLink = regexp.MustCompile(`^DREADLOCK_(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)$`)

// unknownVariable is one that looks as if it were for the daemon, and has no effect.
type unknownVariable struct{ name, where, nearest string }

// warn logs what has no effect.
func warn(unknown []unknownVariable, log zerolog.Logger) {
	for _, v := range unknown {
		line := log.Warn().Str("variable", v.name).Str("where", v.where)
		if v.nearest != "" {
			line = line.Str("nearest", v.nearest)
		}
		line.Msg("a variable that the daemon does not know has no effect")
	}
}

// variablesOf returns the names of the variables of all options.
func variablesOf(model *kong.Application) map[string]bool {
	names := make(map[string]bool)
	_ = kong.Visit(model, func(node kong.Visitable, next kong.Next) error { // no error comes from here
		if flag, ok := node.(*kong.Flag); ok {
			for _, name := range flag.Envs {
				names[name] = true
			}
		}
		return next(nil)
	})
	return names
}

// unknownInEnvironment returns the variables that begin like ours and are read by nobody. An empty one counts as not set.
func unknownInEnvironment(environ []string, known map[string]bool) (unknown []unknownVariable) {
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		value = strings.TrimSpace(value)
		link := serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
		if strings.HasPrefix(name, variablePrefix) && value != "" && !known[name] && !slices.Contains(othersVariables, name) && !link {
			unknown = append(unknown, unknownVariable{name, "environment", nearest(name, known)})
		}
	}
	return unknown
}

// nearest returns the known name that somebody may have meant, empty if none is like it: at most a third of it is otherwise.
func nearest(name string, known map[string]bool) (best string) {
	short := strings.TrimPrefix(strings.ToUpper(name), variablePrefix)
	least := max(1, len(short)/3) + 1
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if d := distance(short, strings.TrimPrefix(candidate, variablePrefix)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance returns how many letters must be put in, left out or changed to make one text of the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of the beginning of a so far to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0] // of the previous row, one to the left
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}
