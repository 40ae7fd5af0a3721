package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	a := serveAdmin(t)
	for _, c := range []struct {
		words []string
		want  string // the candidates without what they mean, or what the shell is told
	}{
		{nil, "lock status locks waiters connections deadlocks kick top completion"},
		{[]string{"lo"}, "lock locks"},
		{[]string{"--ad"}, "--admin --admin-token-file"},
		{[]string{"--server", "lock", "wait"}, "waiters"},
		{[]string{"--server=lock", "wait"}, "waiters"},
		{[]string{"locks", "--so"}, "--sort"},
		{[]string{"locks", "--sort", ""}, "key waiters age wait"},
		{[]string{"locks", "--sort=wa"}, "--sort=waiters --sort=wait"},
		{[]string{"locks", "--limit", ""}, ""},
		{[]string{"waiters", ""}, "a1 b"},
		{[]string{"waiters", "ni"}, "nightly"},
		{[]string{"waiters", "b", ""}, ""},
		{[]string{"kick", ""}, "5 7"},
		{[]string{"kick", "5", "7"}, "7"},
		{[]string{"completion", ""}, "bash zsh fish"},
		{[]string{"status", "--admin-token-file", "/et"}, ":files"},
		{[]string{"lock", "n"}, "nightly"},
		{[]string{"lock", "--try", "n"}, "nightly"},
		{[]string{"lock", "--on-lost", ""}, "stop warn"},
		{[]string{"lock", "-w", "30s", "n"}, "nightly"},
		{[]string{"lock", "k", "--gr"}, "--grace"},
		{[]string{"lock", "k", "ec"}, ":command 2"},
		{[]string{"lock", "k", "--", ""}, ":command 3"},
		{[]string{"lock", "k", "--try", "--", "ls", "--al"}, ":command 4"},
		{[]string{"lock", "k", "ls", "--al"}, ":command 2"},
	} {
		got := runWith(t, []string{"DREADLOCK_ADMIN=" + a.url}, append([]string{"__complete", "--"}, c.words...)...)
		var words []string
		for row := range strings.Lines(got.stdout) {
			word, _, _ := strings.Cut(strings.TrimSuffix(row, "\n"), "\t")
			words = append(words, word)
		}
		if got.status != 0 || got.stderr != "" || strings.Join(words, " ") != c.want {
			t.Errorf("%q: %q, want %q; %+v", c.words, words, c.want, got)
		}
	}
	// With --admin on the line it is that one, and without an answer there is nothing.
	if got := runs(t, "__complete", "--", "--admin", a.url, "waiters", ""); !strings.HasPrefix(got.stdout, "a1\theld 250ms, 0 waiters\n") {
		t.Errorf("%+v", got)
	}
	a.down.Store(true)
	if got := runs(t, "__complete", "--", "--admin", a.url, "waiters", ""); got.status != 0 || got.stdout != "" || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

// The script for bash, in bash.
func TestBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	a := serveAdmin(t)
	const script = `source <("$0" completion bash)
complete -p dreadlockctl >/dev/null || exit
COMP_LINE="$0 $1" COMP_POINT=${#COMP_LINE}
_dreadlockctl 2>/dev/null
echo "${COMPREPLY[*]}"`
	for line, want := range map[string]string{
		"wai":                                    "waiters",
		"--server localhost:6001 wai":            "waiters",
		"locks --sort=wa":                        "waiters wait",
		"waiters n":                              "nightly",
		"lock nightly --server localhost:1 -- /": "",
	} {
		cmd := exec.Command(bash, "--norc", "-c", script, program, line)
		cmd.Env = environment("DREADLOCK_ADMIN=" + a.url)
		output, err := cmd.Output()
		got := strings.TrimSpace(string(output))
		if want == "" { // whatever commands there are
			if err != nil || got == "" {
				t.Errorf("%s: %q, %v", line, got, err)
			}
		} else if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
}
