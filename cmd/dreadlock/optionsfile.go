package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	into.values, err = f.read()
	return err
}

// fileOptions are the options in a file. They go before the environment, and after the command line.
type fileOptions struct {
	values map[string]string // by the names of the variables
}

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

// read returns the values in the file, by the names of the variables. Whatever else is in it is left out, as in the environment.
func (f optionsFile) read() (map[string]string, error) {
	path, optional := strings.CutPrefix(string(f), "-")
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--options-file: %w", err)
	}
	values := make(map[string]string)
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("--options-file %s: line %d: want DREADLOCK_...=VALUE", path, i+1)
		}
		values[strings.TrimSpace(name)] = unquote(strings.TrimSpace(value))
	}
	return values, nil
}

// unquote removes the quotes around a value.
func unquote(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return strings.TrimSpace(value[1 : n-1])
	}
	return value
}
