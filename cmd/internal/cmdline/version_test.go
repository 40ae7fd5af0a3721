package cmdline

import (
	"runtime/debug"
	"testing"
)

// What is known of a build is said, and what is not is not made up.
func TestDescribe(t *testing.T) {
	vcs := func(pairs ...string) (all []debug.BuildSetting) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return all
	}
	for _, c := range []struct {
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"", nil, "(devel), commit unknown"},
		{"(devel)", nil, "(devel), commit unknown"},
		{"v1.2.0", nil, "v1.2.0, commit unknown"},
		{"v1.2.0", vcs("vcs.revision", "8ed5f5a", "vcs.time", "2026-11-29T00:45:12Z", "vcs.modified", "false"),
			"v1.2.0, commit 8ed5f5a of 2026-11-29T00:45:12Z"},
		{"v1.2.0+dirty", vcs("vcs.revision", "8ed5f5a", "vcs.time", "2026-11-29T00:45:12Z", "vcs.modified", "true"),
			"v1.2.0+dirty, commit 8ed5f5a of 2026-11-29T00:45:12Z with changes"},
	} {
		info := &debug.BuildInfo{Settings: c.settings}
		info.Main.Version = c.version
		if got := describe(info); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
