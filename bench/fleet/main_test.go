package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// asProgram makes the test program be the program.
const asProgram = "DREADLOCK_FLEET_TEST_MAIN"

// daemonProgram is the daemon, built from the checkout for all tests.
var daemonProgram string

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dreadlock-fleet-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// A program with the race detector sleeps for a second before it exits, and this one runs itself many times.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	daemonProgram = filepath.Join(dir, "dreadlock")
	if out, err := exec.Command("go", "build", "-o", daemonProgram, "dreadlock/cmd/dreadlock").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the daemon: %v\n%s", err, out))
	}
	return m.Run()
}

// outcome is how a run of the program ended.
type outcome struct {
	status         int
	stdout, stderr string
}

// runProgram runs the program. What it starts is the test program, too.
func runProgram(t *testing.T, args ...string) outcome {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
