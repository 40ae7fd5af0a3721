package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeOptions writes a file with options and returns its path.
func writeOptions(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "options")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Options come from the command line, else from the file, else from the environment, whoever names the file.
func TestOptionsFile(t *testing.T) {
	path := writeOptions(t, "\ufeffDREADLOCK_MAX_PIPELINE=2KiB", "# options of the daemon", "", "DREADLOCK_LOOPS=3\r", ` DREADLOCK_TICK = "7ms" `, "; more", "DREADLOCK_LISTEN='127.0.0.1:0 127.0.0.2:0'",
		"DREADLOCK_MAX_KEYS=", "DREADLOCK_MAX_CONNECTIONS=9", "GOGC=off", "DREADLOCK_PPROF=true")
	for _, c := range []struct {
		env  []string
		args []string
	}{
		{nil, []string{"--options-file", path}},
		{[]string{"DREADLOCK_OPTIONS_FILE=" + path + "\r"}, nil},
		{[]string{"DREADLOCK_OPTIONS_FILE=-" + path}, nil},
		{[]string{"DREADLOCK_OPTIONS_FILE=/nonexistent"}, []string{"--options-file", path}},
	} {
		env := append([]string{"DREADLOCK_LOOPS=many", "DREADLOCK_LISTEN=127.0.0.3:0", "DREADLOCK_MAX_KEYS=8"}, c.env...)
		d := startWith(t, launch{env: env}, append([]string{"--max-connections", "11"}, c.args...)...)
		for name, want := range map[string]string{"loops": "3", "tick": "7ms", "max_keys": "8", "max_connections": "11", "max_pipeline": "2048"} {
			if got := d.ready.text(name); got != want {
				t.Errorf("%q %q: %s is %s, want %s", c.env, c.args, name, got, want)
			}
		}
		if !strings.HasPrefix(d.ready.text("address"), "127.0.0.1:") || strings.Contains(d.log.String(), "127.0.0.3") {
			t.Errorf("%q %q: log:\n%s", c.env, c.args, d.log)
		}
		d.stop()
	}
	missing := startWith(t, launch{env: []string{"DREADLOCK_OPTIONS_FILE=-/nonexistent", "DREADLOCK_LOOPS=3"}}, "--listen", "127.0.0.1:0")
	if got := missing.ready.text("loops"); got != "3" {
		t.Errorf("without the file: %s loops", got)
	}
	port := startWith(t, launch{env: []string{"DREADLOCK_OPTIONS_FILE=" + path}}, "0")
	if strings.HasPrefix(port.address, "127.") {
		t.Errorf("it listens at %s, not at the port", port.address)
	}
}

// A file that cannot be read, or makes no sense, is named.
func TestBadOptionsFile(t *testing.T) {
	nonsense, bad := writeOptions(t, "DREADLOCK_LOOPS=3", "nonsense"), writeOptions(t, "DREADLOCK_LOOPS=many")
	shell, typo, newer := writeOptions(t, "export DREADLOCK_LOOPS=3"), writeOptions(t, "", "DREADLOCK_MAXKEYS=7"), writeOptions(t, "DREADLOCK_OF_A_NEWER_DAEMON=1")
	another := writeOptions(t, "DREADLOCK_OPTIONS_FILE=/etc/default/another")
	for path, says := range map[string]string{
		"/nonexistent":    "--options-file: open /nonexistent: no such file",
		"-" + t.TempDir(): "is a directory",
		nonsense:          "--options-file " + nonsense + ": line 2: want DREADLOCK_...=VALUE",
		bad:               "--loops",
		shell:             shell + ": line 1: want DREADLOCK_...=VALUE",
		typo:              "--options-file " + typo + ": line 2: unknown option DREADLOCK_MAXKEYS, did you mean DREADLOCK_MAX_KEYS? (",
		newer:             "--options-file " + newer + ": line 1: unknown option DREADLOCK_OF_A_NEWER_DAEMON (",
		another:           "unknown option DREADLOCK_OPTIONS_FILE (",
	} {
		got := run(t, launch{env: []string{"DREADLOCK_OPTIONS_FILE=" + path}})
		if got.status != 2 || got.stdout != "" || !oneLine(got.stderr, says) {
			t.Errorf("%s: %+v, want 2 and one line with %q", path, got, says)
		}
	}
}
