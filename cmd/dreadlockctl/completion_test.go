package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	a := serveAdmin(t)
	for _, c := range []struct {
		words []string
		want  string // the candidates without descriptions, or the directive for the shell
	}{
		{nil, "lock health status locks waiters connections deadlocks kick release drain takeover history watch top completion"},
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
		{[]string{"release", "n"}, "nightly"},
		{[]string{"release", "--con"}, "--connection"},
		{[]string{"kick", "--ho"}, "--holder-of"},
		{[]string{"kick", "--holder-of", "n"}, "nightly"},
		{[]string{"hi"}, "history"},
		{[]string{"history", "ni"}, "nightly"},
		{[]string{"watch", "b"}, "b"},
		{[]string{"watch", "--li"}, "--limit"},
		{[]string{"history", "--connection", ""}, "5 7"},
		{[]string{"dr"}, "drain"},
		{[]string{"drain", "--ti"}, "--timeout"},
		{[]string{"drain", "--timeout", ""}, ""},
		{[]string{"drain", "--timeout", "5m", "--w"}, "--wait"},
		{[]string{"drain", ""}, ""},
		{[]string{"completion", ""}, "bash zsh fish"},
		{[]string{"status", "--admin-token-file", "/et"}, ":files"},
		{[]string{"--tls"}, "--tls-ca --tls-cert --tls-key"},
		{[]string{"--tls-ca", "ca"}, ":files"},
		{[]string{"lock", "--tls-cert", "a.pem", "--tls-key", ""}, ":files"},
		{[]string{"lock", "n"}, "nightly"},
		{[]string{"lock", "--try", "n"}, "nightly"},
		{[]string{"lock", "--on-lost", ""}, "stop warn"},
		{[]string{"lock", "-w", "30s", "n"}, "nightly"},
		{[]string{"lock", "--connect-timeout", "1", "-n", "n"}, "nightly"},
		{[]string{"lock", "--orphans", ""}, "end leave"},
		{[]string{"lock", "--at"}, "--at-least"},
		{[]string{"lock", "--con"}, "--connect-timeout --conflict-exit-code"},
		{[]string{"lock", "--r"}, "--restart"},
		{[]string{"lock", "--sh"}, "--shell"},
		{[]string{"lock", "--wa"}, "--wait --wait-children"},
		{[]string{"kick", "--n"}, "--name"},
		{[]string{"kick", "--name", ""}, "nightly@db1"},
		{[]string{"lock", "--n"}, "--name"},
		{[]string{"lock", "--name", ""}, ""},
		{[]string{"lock", "k", "--gr"}, "--grace"},
		{[]string{"lock", "k", "--hea"}, "--heartbeat"},
		{[]string{"lock", "k", "--ke"}, "--keepalive"},
		{[]string{"lock", "k", "ec"}, ":command 2"},
		{[]string{"lock", "k", "--", ""}, ":command 3"},
		{[]string{"lock", "k", "--try", "--", "ls", "--al"}, ":command 4"},
		{[]string{"lock", "k", "ls", "--al"}, ":command 2"},
	} {
		completes(t, a, c.words, c.want)
	}
	// --admin on the line is heeded, and if the daemon refuses there are no candidates.
	eventually(t, func() (bool, any) {
		got := runs(t, "__complete", "--", "--admin", a.url, "waiters", "")
		return strings.HasPrefix(got.stdout, "a1\theld 250 ms, 0 waiters\n"), got
	})
	a.down.Store(true)
	if got := runs(t, "__complete", "--", "--admin", a.url, "waiters", ""); got.status != 0 || got.stdout != "" || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

// completes expects candidates. Without an answer of the daemon within half a second there are none, which may happen on a busy
// machine, so then it tries again.
func completes(t *testing.T, a *fakeAdmin, words []string, want string) {
	t.Helper()
	eventually(t, func() (bool, any) {
		got := runWith(t, []string{"DREADLOCK_ADMIN=" + a.url}, append([]string{"__complete", "--"}, words...)...)
		var candidates []string
		for row := range strings.Lines(got.stdout) {
			word, _, _ := strings.Cut(strings.TrimSuffix(row, "\n"), "\t")
			candidates = append(candidates, word)
		}
		if got.status != 0 || got.stderr != "" || len(candidates) > 0 && strings.Join(candidates, " ") != want {
			t.Fatalf("%q: %q, want %q; %+v", words, candidates, want, got)
		}
		return strings.Join(candidates, " ") == want, got
	})
}

// The bash script, in bash.
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
		"lock nightly --server localhost:1 -- /": "/", // whatever commands there are
	} {
		eventually(t, func() (bool, any) {
			cmd := exec.Command(bash, "--norc", "-c", script, program, line)
			cmd.Env = environment("DREADLOCK_ADMIN=" + a.url)
			output, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			got := strings.TrimSpace(string(output))
			if got == "" {
				return false, line
			}
			if got != want && (want != "/" || !strings.HasPrefix(got, "/")) {
				t.Fatalf("%s: %q, want %q", line, got, want)
			}
			return true, got
		})
	}
}

// The fish script, in fish, which also shows descriptions.
func TestFish(t *testing.T) {
	fish, err := exec.LookPath("fish")
	if err != nil {
		t.Skip("there is no fish")
	}
	a := serveAdmin(t)
	for line, want := range map[string]string{
		"wai":                         "waiters\tShow the holder of a key, and its queue.",
		"--server localhost:6001 wai": "waiters\tShow the holder of a key, and its queue.",
		"locks --sort=wai":            "--sort=wait\n--sort=waiters",
		"waiters n":                   "nightly\theld 1 min 15 s, 1,234 waiters",
		"lock nightly -- dreadlockctl completion fi": "fish", // of the command
	} {
		eventually(t, func() (bool, any) {
			cmd := exec.Command(fish, "--no-config", "-c", `dreadlockctl completion fish | source; complete -C "dreadlockctl $LINE"`)
			cmd.Env = environment("LINE="+line, "DREADLOCK_ADMIN="+a.url, "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "HOME="+t.TempDir())
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", line, err, output)
			}
			return strings.TrimSpace(string(output)) == want, string(output)
		})
	}
}

// The zsh script, at the terminal of a zsh that has loaded no completion.
func TestZsh(t *testing.T) {
	zsh, err := exec.LookPath("zsh")
	if err != nil {
		t.Skip("there is no zsh")
	}
	if testing.Short() {
		t.Skip("zsh takes seconds to load its completion")
	}
	a := serveAdmin(t)
	tt := beginAt(t, []string{
		"DREADLOCK_ADMIN=" + a.url, "PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(),
	}, zsh, "-f", "-i")
	tt.typed(`source <(dreadlockctl completion zsh)
show() { zle -I; print -r -- "[$BUFFER]"; BUFFER=; }; zle -N show; bindkey '^X' show; echo rea''dy
`)
	tt.shown.await(t, "ready\r\n")
	for line, want := range map[string]string{
		"wai":                         "waiters ",
		"--server localhost:6001 wai": "--server localhost:6001 waiters ",
		"locks --sort=waite":          "locks --sort=waiters ",
		"waiters n":                   "waiters nightly ",
		"lock nightly -- dreadlockctl completion fi": "lock nightly -- dreadlockctl completion fish ", // of the command
	} {
		eventually(t, func() (bool, any) {
			before := tt.shown.len()
			tt.typed("dreadlockctl " + line + "\t\x18")
			tt.shown.awaitAfter(t, before, "[dreadlockctl "+line)
			return strings.Contains(tt.shown.String()[before:], "[dreadlockctl "+want+"]"), tt.shown.String()[before:]
		})
	}
}
