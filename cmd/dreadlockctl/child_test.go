package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// childArgument selects the role of a child, see [childCommand].
const childArgument = "a-child-of-the-tests"

// childCommand returns a command for dreadlockctl where the moment of a signal matters: this test binary in another role. It
// says when it is ready for the signal. A shell that traps a signal is not suitable:
//
//  1. the shell, which traps SIGTERM, forks to start a sleep;
//  2. SIGTERM reaches the child before its exec, and the handler inherited from the shell records it;
//  3. the exec discards the record, and the sleep runs on.
//
// A shell without a trap is suitable: SIGTERM ends it, and its children before and after the exec.
func childCommand(role string, args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{"--", self, childArgument, role}, args...)
}

// runChild plays a role, in the process of the child, and returns its exit status.
func runChild(args []string) int {
	switch role := args[0]; role {
	case "wait": // for a signal that ends it
		fmt.Println("ready")
	case "catch": // the named signal
		caught := notified(allSignals[args[1]])
		fmt.Println("ready")
		<-caught
		fmt.Println("got it")
		return 5
	case "ignore": // the named signal, as does a child of its own
		signal.Ignore(allSignals[args[1]])
		self := childCommand("wait")
		child, err := os.StartProcess(self[1], self[1:], &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		_, _ = child.Wait() // it says that it is ready, and does not end by itself
	case "guard": // a file, which is locked as long as this runs; SIGTERM does not end it
		signal.Ignore(syscall.SIGTERM)
		fallthrough
	case "guard-until-term":
		if err := guard(args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("ready")
	case "serve":
		return serveSpace(args[1], args[2])
	case "nest":
		return nest(args[1], args[2], args[3])
	case "count":
		return countInterrupts()
	case "write":
		return writeToken(args[1], args[2], args[3])
	default:
		fmt.Fprintf(os.Stderr, "there is no role %q\n", role)
		return 1
	}
	for {
		_ = syscall.Pause()
	}
}

// guard locks a file until this process ends.
func guard(file string) error {
	fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return syscall.Flock(fd, syscall.LOCK_EX)
}

// countInterrupts reads a line and then counts interrupts. It prints the number at each of them and at SIGUSR1, and ends at
// SIGTERM.
func countInterrupts() int {
	caught := notified(syscall.SIGINT, syscall.SIGUSR1, syscall.SIGTERM)
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Printf("read %q\n", line)
	for n := 0; ; {
		switch s := <-caught; s {
		case syscall.SIGINT:
			n++
			fmt.Printf("interrupt %d\n", n)
		case syscall.SIGUSR1:
			fmt.Printf("interrupts so far: %d\n", n)
		default:
			return 6
		}
	}
}

func notified(signals ...os.Signal) <-chan os.Signal {
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, signals...)
	return caught
}

// restoreSignals lets child processes start with the default action for interrupts and hang-ups, also where these are ignored,
// as in a script's "make test &": children inherit ignored signals, but not caught ones. What is caught here is dropped, so
// this process still ignores them.
func restoreSignals() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// isChild reports whether this process was started by [childCommand].
func isChild() bool { return slices.Contains(os.Args[1:min(len(os.Args), 2)], childArgument) }
