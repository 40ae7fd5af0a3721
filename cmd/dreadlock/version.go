package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version returns the text of --version: the module's version, the commit and the Go version.
func version() string {
	commit, state := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				state = " with changes"
			}
		}
	}
	return fmt.Sprintf("dreadlock %s, commit %s%s, %s %s/%s",
		shortVersion(), commit, state, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// shortVersion returns the module's version only.
func shortVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
