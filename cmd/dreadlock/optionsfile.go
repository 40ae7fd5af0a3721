package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// optionsFile is the path of a file with options. After a dash it may be missing, as in units of systemd.
//
// It is what a takeover can change: the new process has the command line and the environment of the former one.
type optionsFile string

// BeforeResolve reads the file.
func (f optionsFile) BeforeResolve(ctx *kong.Context, trace *kong.Path, into *fileOptions) (err error) {
	if given, ok := ctx.FlagValue(trace.Flag).(optionsFile); ok {
		f = given
	}
	known := variablesOf(ctx.Model)
	delete(known, trace.Flag.Envs[0]) // one file does not lead to another
	into.values, into.unknown, err = f.read(known)
	return err
}

// fileOptions are the options in a file. They go before the environment, and after the command line.
type fileOptions struct {
	values  map[string]string // by the names of the variables
	unknown []unknownVariable // what the file has besides
}

// variableName is what a shell, systemd and the environment take for the name of a variable.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate is for [kong.Resolver].
func (*fileOptions) Validate(*kong.Application) error { return nil }

// Resolve returns the value of an option, nil if the file has none.
func (o *fileOptions) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if value := o.values[name]; value != "" {
			return value, nil
		}
	}
	return nil, nil
}

// read returns the values in the file, by the names of the variables. A name like ours that the daemon does not know is an error, as an
// unknown option of the command line is. Others, which may be meant for the Go runtime or the C library, are returned: those read the
// environment alone.
func (f optionsFile) read(known map[string]bool) (values map[string]string, unknown []unknownVariable, err error) {
	path, optional := strings.CutPrefix(string(f), "-")
	if path == "" {
		return nil, nil, nil
	}
	text, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("--options-file: %w", err)
	}
	values = make(map[string]string)
	for i, line := range strings.Split(strings.TrimPrefix(string(text), byteOrderMark), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok || !variableName.MatchString(name):
			return nil, nil, fmt.Errorf("--options-file %s: line %d: want DREADLOCK_...=VALUE", path, i+1)
		case known[name]:
			values[name] = unquote(strings.TrimSpace(value))
		case strings.HasPrefix(name, variablePrefix) && !slices.Contains(othersVariables, name):
			err = fmt.Errorf("--options-file %s: line %d: unknown option %s", path, i+1, name)
			if like := nearest(name, known); like != "" {
				err = fmt.Errorf("%w, did you mean %s?", err, like)
			}
			return nil, nil, err
		default:
			unknown = append(unknown, unknownVariable{name, path, nearest(name, known)})
		}
	}
	return values, unknown, nil
}

// byteOrderMark is what editors of other systems begin a file with.
const byteOrderMark = "\ufeff"

// unquote removes the quotes around a value.
func unquote(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return strings.TrimSpace(value[1 : n-1])
	}
	return value
}
