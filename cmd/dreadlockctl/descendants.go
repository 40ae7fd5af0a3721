package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// descendants returns the processes that descend from ours and run, parents before their children; none where /proc is
// not to be had.
func descendants() []int {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if pid, parent, running := parseStat(text); running {
			children[parent] = append(children[parent], pid)
		}
	}
	all := append([]int(nil), children[os.Getpid()]...)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// parseStat reads a line of /proc/PID/stat: "7 (a name) S 1 ...", where the name may have brackets and spaces itself.
func parseStat(text []byte) (pid, parent int, running bool) {
	begin, end := bytes.IndexByte(text, ' '), bytes.LastIndexByte(text, ')')
	if begin < 0 || end < 0 {
		return 0, 0, false
	}
	fields := bytes.Fields(text[end+1:])
	if len(fields) < 2 {
		return 0, 0, false
	}
	pid, err := strconv.Atoi(string(text[:begin]))
	if err != nil {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return pid, parent, err == nil && !bytes.ContainsAny(fields[0], "ZXx")
}
