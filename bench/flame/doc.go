// Package flame shows where the processor time of the daemon goes: it reads profiles, says for each function what part of the
// daemon it belongs to, and draws flame graphs.
//
//	ReadPprof ─┐
//	           ├─► Profile: stacks with their time ─┬─► Shares ─► table
//	ReadPerf ──┘                                    └─► Draw ─► SVG
//
// # Profiles
//
// A profile of the Go runtime ends at system calls: it knows which one took the time, not what the kernel did in it. A profile that
// perf has recorded goes on into the kernel. Both become the same stacks: the functions of the program, then one frame for the
// system call, named as in the kernel's manual (write), then the functions of the kernel, if they are known.
//
// # Parts
//
// Every frame belongs to one [Part]. The time of a stack is charged to the part of its innermost frame; libraries, which do their work
// for whoever calls them, are charged to their caller. So every moment is charged to exactly one part, and the shares add up to the whole.
//
// # Drawing
//
// A box is a function, its width the time in it and in what it calls; it stands on its caller. A function that spends nearly all of
// its time in one other function of its part shares the box with it, or the picture would be as tall as the deepest stack. A title
// over each box has all names. The picture needs no script and has colours for light and dark pages.
//
// All functions are safe from any goroutine. Start reading at profile.go.
package flame
