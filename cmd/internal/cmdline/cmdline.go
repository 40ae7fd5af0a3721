// Package cmdline has what the command lines of all programs have in common: how their environment variables are read, and what is
// said about what cannot be read.
package cmdline

import (
	"os"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// Parse parses a command line. An environment variable that is empty is taken for one that is not set, and white space around
// a value is no part of it: it comes from files, and from there also the carriage return at the end of a line. The environment
// is as before afterwards, for the processes that the program starts.
func Parse(parser *kong.Kong, args []string) (*kong.Context, error) {
	defer tidy(parser.Model)()
	parsed, err := parser.Parse(args)
	if err != nil {
		return parsed, &plainError{err}
	}
	return parsed, nil
}

// plainError is an error of the parser in plain words.
type plainError struct{ err error }

// Unwrap returns the error of the parser.
func (e *plainError) Unwrap() error { return e.err }

// Error returns what to give instead, where the parser speaks of its types and tokens.
func (e *plainError) Error() string {
	text := argument.ReplaceAllString(e.err.Error(), "$1: ")
	where := ""
	if from := variable.FindStringSubmatchIndex(text); from != nil {
		text, where = text[:from[0]], " (from "+text[from[2]:from[3]]+")"
	}
	for _, p := range plainWords {
		if p.said.MatchString(text) {
			text = p.said.ReplaceAllString(text, p.plain)
			break
		}
	}
	return text + where
}

// variable is where the parser says that a value came from.
var variable = regexp.MustCompile(` \(from envar (\w+)=.*\)$`)

// argument is how the parser calls one at the beginning of a message.
var argument = regexp.MustCompile(`^\[?<([a-z-]+)>\]?: `)

var plainWords = []struct {
	said  *regexp.Regexp
	plain string
}{
	{regexp.MustCompile(`^expected "<([a-z-]+)>.*"$`), "the $1 is missing"},
	{regexp.MustCompile(`: expected .*value but got "EOL" \(<EOL>\)$`), ": the value is missing"},
	{regexp.MustCompile(`: expected .*value but got (".*") \((?:short|long) flag\); perhaps try (.*)\?$`), ": $1 looks like an option: write $2"},
	{regexp.MustCompile(`: expected duration but got "([0-9.]+)": time: missing unit .*$`), ": $1 has no unit: want a duration like 30s, 5m or 2h"},
	{regexp.MustCompile(`: expected duration but got (".*"): time: .*$`), ": want a duration like 30s, 5m or 2h, not $1"},
	{regexp.MustCompile(`expected (?:an int|a valid \d+ bit u?int) but got (".*?")(?: \(.*\))?$`), "want a whole number, not $1"},
}

// tidy trims the variables of all options, and unsets those that are empty. It returns what undoes that.
func tidy(model *kong.Application) (restore func()) {
	before := make(map[string]string)
	_ = kong.Visit(model, func(node kong.Visitable, next kong.Next) error { // no error comes from here
		if flag, ok := node.(*kong.Flag); ok {
			for _, name := range flag.Envs {
				if value, set := os.LookupEnv(name); set {
					before[name] = value
				}
			}
		}
		return next(nil)
	})
	for name, value := range before {
		if value = strings.TrimSpace(value); value == "" {
			_ = os.Unsetenv(name) // fails for no name that an option has
		} else {
			_ = os.Setenv(name, value)
		}
	}
	return func() {
		for name, value := range before {
			_ = os.Setenv(name, value)
		}
	}
}
