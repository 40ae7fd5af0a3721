package cmdline

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// noVersion is the version of a program that was built where no version control says one.
const noVersion = "(devel)"

// Version returns the text of --version: what the build of a program is. It is one line: version, commit and its time, Go
// version, platform.
func Version(program string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return fmt.Sprintf("%s %s, %s %s/%s", program, describe(info), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// ShortVersion returns the version alone: the tag of the commit, like v1.2.0, or a version that Go makes of time and commit.
func ShortVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return noVersion
	}
	return versionOf(info)
}

// Built returns the time of the commit from which the program was built, the zero time if that is not known.
func Built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, setting(info, "vcs.time"))
	if err != nil {
		return time.Time{}
	}
	return at
}

func versionOf(info *debug.BuildInfo) string {
	if info.Main.Version == "" {
		return noVersion
	}
	return info.Main.Version
}

// describe returns version, commit and time.
func describe(info *debug.BuildInfo) string {
	commit := setting(info, "vcs.revision")
	if commit == "" {
		return versionOf(info) + ", commit unknown"
	}
	text := fmt.Sprintf("%s, commit %s", versionOf(info), commit)
	if at := setting(info, "vcs.time"); at != "" {
		text += " of " + at
	}
	if setting(info, "vcs.modified") == "true" {
		text += " with changes"
	}
	return text
}

// setting returns a setting of the build, empty if it is not there.
func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
