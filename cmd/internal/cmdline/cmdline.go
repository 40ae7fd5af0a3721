// Package cmdline has what the command lines of all programs have in common: how their environment variables are read.
package cmdline

import (
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Parse parses a command line. An environment variable that is empty is taken for one that is not set, and white space around
// a value is no part of it: it comes from files, and from there also the carriage return at the end of a line. The environment
// is as before afterwards, for the processes that the program starts.
func Parse(parser *kong.Kong, args []string) (*kong.Context, error) {
	defer tidy(parser.Model)()
	return parser.Parse(args)
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
