package flame

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// node is a box of the picture: functions that call one another, seen with the same callers.
type node struct {
	names    []string // from the outermost
	part     Part
	time     time.Duration // in it and in what it calls
	children []*node       // the one with the most time first

	byName map[string]*node // children, while stacks are added
}

// nearly is the part of a function's time that makes a function that it calls share its box.
const nearly = 0.95

// fold makes a tree of stacks.
func fold(stacks []Stack) *node {
	root := &node{names: []string{"all"}}
	for _, s := range stacks {
		at := root
		at.time += s.Time
		for _, f := range s.Frames {
			at = at.child(f)
			at.time += s.Time
		}
	}
	root.settle()
	for _, child := range root.children {
		child.merge(root.part)
	}
	return root
}

func (n *node) child(f Frame) *node {
	if c := n.byName[f.Name]; c != nil {
		return c
	}
	c := &node{names: []string{f.Name}, part: f.Part}
	if n.byName == nil {
		n.byName = make(map[string]*node)
	}
	n.byName[f.Name] = c
	return c
}

// settle puts the children in order.
func (n *node) settle() {
	n.children = slices.Collect(maps.Values(n.byName))
	n.sort()
	n.byName = nil
	for _, c := range n.children {
		c.settle()
	}
}

// merge takes into the box what takes nearly all of its time and belongs to the same part, and does so in the boxes on it. A system
// call keeps a box of its own.
func (n *node) merge(caller Part) {
	call := n.part == Kernel && caller != Kernel
	for !call && len(n.children) > 0 && n.children[0].part == n.part && float64(n.children[0].time) >= nearly*float64(n.time) {
		only := n.children[0]
		n.names = append(n.names, only.names...)
		n.children = slices.Concat(only.children, n.children[1:])
		n.sort()
	}
	for _, c := range n.children {
		c.merge(n.part)
	}
}

func (n *node) sort() {
	slices.SortFunc(n.children, func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(a.names[0], b.names[0]))
	})
}

// depth returns the number of boxes on top of one another of at least a time.
func (n *node) depth(least time.Duration) (most int) {
	if n.time < least {
		return 0
	}
	for _, c := range n.children {
		most = max(most, c.depth(least))
	}
	return most + 1
}
