package takeover

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Variable is the environment variable that tells a successor which descriptor is its end of the pair.
const Variable = "DREADLOCK_TAKEOVER_FD"

// Command is how a successor is started.
type Command struct {
	Path string   // absolute; what lies there now is run
	Args []string // with the name of the program
	Env  []string // as the predecessor has it: what is for one process alone is left out
}

// ThisCommand returns how the process was started. It is to be called before anything has changed the working directory or
// the environment. Symbolic links in the path stay: what they lead to later is run.
func ThisCommand() (*Command, error) {
	path, err := programPath(os.Args[0], os.Executable)
	if err != nil {
		return nil, err
	}
	return &Command{Path: path, Args: slices.Clone(os.Args), Env: os.Environ()}, nil
}

// programPath returns the absolute path for the name by which a program was called. If that does not lead to the program, because
// whoever started it has given it any name, it is where the kernel says that it is.
func programPath(name string, executable func() (string, error)) (string, error) {
	running, kernelErr := executable()
	path, err := exec.LookPath(name)
	if err == nil || errors.Is(err, exec.ErrDot) {
		path, err = filepath.Abs(path)
	}
	known := kernelErr == nil
	switch {
	case err == nil && (!known || sameFile(path, running)):
		return path, nil
	case !known:
		return "", fmt.Errorf("where this program lies is not known: %w", kernelErr)
	}
	return running, nil
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// ofOneProcess are the variables that are for one process alone: the ends of pairs, sockets that were passed, and whose sign of life
// systemd wants. Without WATCHDOG_PID it wants that of whichever process is the main one.
var ofOneProcess = []string{Variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"}

// Start starts a successor, which writes to the same output as this process and inherits one end of a pair.
func (c *Command) Start() (*Successor, error) {
	ours, theirs, err := newPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the successor has it, or nobody
	const first = 3                       // of the descriptors that exec.Cmd passes beside the standard ones
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.Args,
		Env:   append(slices.DeleteFunc(slices.Clone(c.Env), isOfOneProcess), fmt.Sprintf("%s=%d", Variable, first)),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles: []*os.File{theirs},
	}
	if err := cmd.Start(); err != nil {
		_ = ours.Close()
		return nil, notStarted(err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go p.wait()
	return newSuccessor(ours, p), nil
}

// notStarted says what to do about a program that cannot be started.
func notStarted(err error) error {
	for _, known := range []struct {
		is     error
		advice string
	}{
		{syscall.ENOENT, "put the new version there"},
		{syscall.EACCES, "the user of the daemon must be allowed to execute it"},
		{syscall.ENOEXEC, "it is no program for this machine, or not whole"},
		{syscall.ETXTBSY, "it is still being written: write a new version elsewhere, and move it there"},
	} {
		if errors.Is(err, known.is) {
			return fmt.Errorf("%w: %s", err, known.advice) // it names the path
		}
	}
	return err
}

func isOfOneProcess(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return slices.Contains(ofOneProcess, name)
}

// process is the successor as its parent sees it. It cannot be mistaken for another one: its number is not used again before wait
// has seen its end.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func (p *process) wait() {
	_ = p.cmd.Wait() // what it says is in the state
	close(p.ended)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

func (p *process) done() <-chan struct{} { return p.ended }

func (p *process) state() string { return p.cmd.ProcessState.String() }
