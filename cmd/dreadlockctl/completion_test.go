package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completed returns the candidates for a command line, without their descriptions.
func completed(tb testing.TB, env []string, words ...string) (candidates []string) {
	tb.Helper()
	got := runWith(tb, env, append([]string{"__complete", "--"}, words...)...)
	if got.status != 0 || got.stderr != "" {
		tb.Errorf("%q: %+v", words, got)
	}
	for line := range strings.Lines(got.stdout) {
		candidate, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		candidates = append(candidates, candidate)
	}
	return candidates
}

// Commands, options and values are completed without a daemon, and keys with one.
func TestCompletion(t *testing.T) {
	for _, c := range []struct {
		words, want string
	}{
		{"lo", "lock locks"},
		{"kic", "kick"},
		{"locks --so", "--sort"},
		{"locks --sort wa", "waiters wait"},
		{"completion z", "zsh"},
		{"lock a --on-lost=", "--on-lost=stop --on-lost=warn"},
		{"lock a -- ec", ":command 3"},
		{"status --admin-token-file ./x", ":files"},
	} {
		if got := completed(t, []string{"DREADLOCK_ADMIN=http://127.0.0.1:1"}, strings.Split(c.words, " ")...); strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.words, got, c.want)
		}
	}
	v := startViewed(t)
	holder := v.dial(t)
	holder.Do("lock backup 0", "l locked")
	holder.Do("lock deploy 0", "l locked")
	if got := completed(t, []string{"DREADLOCK_ADMIN=" + v.url}, "waiters", ""); !slices.Contains(got, "backup") || !slices.Contains(got, "deploy") {
		t.Errorf("keys: %q", got)
	}
}

// The script works in a real bash, and those for the others are there.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := runs(t, "completion", shell); got.status != 0 || !strings.Contains(got.stdout, "__complete") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here")
	}
	cmd := exec.Command(bash, "--norc", "-c", `
		PATH=$1:$PATH; source <(dreadlockctl completion bash)
		COMP_LINE='dreadlockctl lo'; COMP_POINT=${#COMP_LINE}
		_dreadlockctl; echo "${COMPREPLY[@]}"`, "bash", filepath.Dir(program))
	cmd.Env = environment()
	output, err := cmd.CombinedOutput()
	if err != nil || string(output) != "lock locks\n" {
		t.Errorf("bash: %q, %v", output, err)
	}
}
