package main

import (
	"os"
	"strings"

	"github.com/prometheus/procfs"
)

// descendants returns the processes that descend from ours and run, parents before their children; none if /proc is not
// mounted.
func descendants() []int {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil
	}
	processes, err := fs.AllProcs()
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, p := range processes {
		stat, err := p.Stat()
		if err != nil {
			continue // it has ended
		}
		if !strings.ContainsAny(stat.State, "ZXx") { // a zombie, or dead
			children[stat.PPID] = append(children[stat.PPID], p.PID)
		}
	}
	all := append([]int(nil), children[os.Getpid()]...)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
