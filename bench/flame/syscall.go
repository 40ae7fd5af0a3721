package flame

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Interrupts names the time in the kernel that the process has not asked for by a system call.
const Interrupts = "interrupts and page faults"

// instruction are the functions of Go that consist of the instruction of a system call, which their caller names.
var instruction = map[string]bool{
	"internal/runtime/syscall/linux.Syscall6": true,
	"syscall.RawSyscall6":                     true,
	"syscall.RawSyscall":                      true,
	"syscall.Syscall6":                        true,
	"syscall.Syscall":                         true,
	"syscall.rawSyscallNoError":               true,
}

// direct are the functions of the Go runtime that make one system call themselves, by its name.
var direct = map[string]string{
	"runtime.futex":                "futex",
	"runtime.usleep":               "nanosleep",
	"runtime.osyield":              "sched_yield",
	"runtime.tgkill":               "tgkill",
	"runtime.madvise":              "madvise",
	"runtime.sysMmap":              "mmap",
	"runtime.write1":               "write",
	"runtime.read":                 "read",
	"runtime.clone":                "clone",
	"runtime.mincore":              "mincore",
	"runtime.sigaltstack":          "sigaltstack",
	"runtime.rtsigprocmask":        "rt_sigprocmask",
	"runtime.timer_settime":        "timer_settime",
	"runtime.timer_create":         "timer_create",
	"runtime.timer_delete":         "timer_delete",
	"runtime.sigreturn__sigaction": "rt_sigreturn",
}

// inlined are functions of the Go runtime that make a system call through a function that perf does not see in them.
var inlined = map[string]string{
	"runtime.netpoll":                 "epoll_wait",
	"runtime.netpollBreak":            "write",
	"internal/poll.runtime_pollOpen":  "epoll_ctl",
	"internal/poll.runtime_pollClose": "epoll_ctl",
}

// alias has the names in Go of system calls that are called otherwise there.
var alias = map[string]string{"epoll_pwait": "epoll_wait"}

var (
	// kernelCall is the kernel's function for a system call.
	kernelCall = regexp.MustCompile(`^_*(?:x64|arm64|se|do)_sys_(\w+)$`)
	// kernelEntry is a function of the kernel that every system call goes through.
	kernelEntry = regexp.MustCompile(`^(?:do_syscall_64|x64_sys_call|entry_SYSCALL_.*|syscall_.*|el0t?_svc.*|do_el0_svc|invoke_syscall.*)$`)
)

// systemCall returns the system call that a stack is in, and the functions before and after it. All are from the innermost. The
// call is empty if the stack is not in the kernel.
func systemCall(program, kernel []string) (call string, before, after []string) {
	call, before = requested(program)
	if len(kernel) == 0 {
		return call, before, nil
	}
	entered := false
	for i, name := range slices.Backward(kernel) {
		if known := kernelCall.FindStringSubmatch(name); known != nil {
			return cmp.Or(alias[known[1]], known[1]), before, kernel[:i]
		}
		if !kernelEntry.MatchString(name) {
			break
		}
		entered = true
	}
	if !entered || call == "" {
		return Interrupts, program, kernel
	}
	return call, before, slices.DeleteFunc(slices.Clone(kernel), kernelEntry.MatchString)
}

// requested returns the system call that functions of the program, from the innermost, make, and those of them that say more than
// its name. The call is empty if they make none.
func requested(program []string) (call string, before []string) {
	if len(program) == 0 {
		return "", nil
	}
	if call := direct[program[0]]; call != "" {
		return call, program[1:]
	}
	outer := slices.IndexFunc(program, func(name string) bool { return !instruction[name] })
	if outer < 1 {
		return "", program
	}
	call, before = cmp.Or(inlined[program[outer]], snake(program[outer])), program[outer:]
	for len(before) > 0 && PartOf(before[0]) == Library && snake(before[0]) == call {
		before = before[1:]
	}
	return call, before
}

// snake makes the name of a system call of that of the function that makes it: epoll_wait of golang.org/x/sys/unix.EpollWait.
func snake(function string) string {
	name := function[strings.LastIndexByte(function, '.')+1:]
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
