package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"dreadlock/cmd/internal/cmdline"
	"dreadlock/server/api"
)

// completionCommand prints the script for a shell. The scripts are small: at every tab they run the hidden command
// __complete, so they fit every version of the program.
//
// Libraries for this, like kongplete, know only the command line. After lock KEY -- they would complete the options of
// dreadlockctl, where the shell completes the command that will run. They complete no keys and connections, and do not show
// what a candidate means.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

//go:embed completion
var scripts embed.FS

// Help has examples.
func (*completionCommand) Help() string {
	return `For this session:

  bash: source <(dreadlockctl completion bash)
  zsh:  source <(dreadlockctl completion zsh)
  fish: dreadlockctl completion fish | source

Permanently:

  bash: dreadlockctl completion bash > /etc/bash_completion.d/dreadlockctl
  zsh:  dreadlockctl completion zsh > "${fpath[1]}/_dreadlockctl"
  fish: dreadlockctl completion fish > ~/.config/fish/completions/dreadlockctl.fish

Commands, options and their values are completed; keys and connections too if the admin interface answers.`
}

// Run prints the script.
func (c *completionCommand) Run(s *streams) error {
	script, err := scripts.ReadFile("completion/" + c.Shell)
	if err != nil {
		return err
	}
	_, err = s.stdout.Write(script)
	return err
}

// completeCommand completes a command line.
type completeCommand struct {
	Words []string `arg:"" optional:""` // after the program's name; the last one is being typed and may be empty
}

// Run prints one candidate per line, with a tab and a description if it has one. Instead it prints ":command N" if word N,
// counted from 0, begins another command line, or ":files" to complete names of files.
func (c *completeCommand) Run(ctx context.Context, s *streams) error {
	parser, line, err := newParser(s)
	if err != nil {
		return err
	}
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:] // the script puts it before the words of the user
	}
	if len(words) == 0 {
		words = []string{""}
	}
	return complete(s.stdout, parser.Model.Node, words, func(command, prefix string) []candidate {
		before := words[:len(words)-1]
		if n := len(before); n > 0 && strings.HasPrefix(before[n-1], "-") {
			before = before[:n-1] // without its value it would be an error, and nothing would be known
		}
		_, _ = cmdline.Parse(parser, before) // for --admin; the command line is incomplete, so errors mean nothing
		ctx, cancel := context.WithTimeout(ctx, tabTimeout)
		defer cancel()
		return liveCandidates(ctx, &line.globals, command, prefix)
	})
}

// candidate is a possible completion.
type candidate struct {
	word, help string
}

// complete writes the candidates for the last word. live returns keys or connections, for a command and a prefix.
func complete(w io.Writer, node *kong.Node, words []string, live func(command, prefix string) []candidate) error {
	last := words[len(words)-1]
	arguments := 0      // of the command, so far
	var flag *kong.Flag // its value is the next word
	var all []candidate
	for i, word := range words[:len(words)-1] {
		switch {
		case flag != nil:
			flag = nil
		case node.Name == "lock" && arguments > 0 && word == "--":
			return directive(w, ":command", i+1)
		case strings.HasPrefix(word, "-"):
			if !strings.Contains(word, "=") {
				flag = valued(node, word)
			}
		case child(node, word) != nil:
			node = child(node, word)
		case node.Name == "lock" && arguments > 0:
			return directive(w, ":command", i)
		default:
			arguments++
		}
	}
	name, _, whole := strings.Cut(last, "=")
	switch {
	case flag != nil && flag.PlaceHolder == "FILE":
		return directive(w, ":files")
	case flag != nil && flag.PlaceHolder == "KEY":
		all = live("locks", last)
	case flag != nil && flag.PlaceHolder == "CONN":
		all = live("kick", last)
	case flag != nil && flag.Name == "name" && node.Name == "kick":
		all = live("names", last)
	case flag != nil:
		all = values(flag, "")
	case whole && valued(node, name) != nil:
		all = values(valued(node, name), name+"=")
	case strings.HasPrefix(last, "-"):
		all = flags(node)
	case node.Name == "lock" && arguments > 0:
		return directive(w, ":command", len(words)-1)
	case len(node.Children) > 0:
		for _, c := range node.Children {
			if !c.Hidden {
				all = append(all, candidate{c.Name, c.Help})
			}
		}
	case node.Name == "completion" && arguments == 0:
		for _, shell := range node.Positional[0].EnumSlice() {
			all = append(all, candidate{word: shell})
		}
	case node.Name == "kick", arguments == 0:
		all = live(node.Name, last)
	}
	for _, c := range all {
		if !strings.HasPrefix(c.word, last) {
			continue
		}
		if c.help != "" {
			c.help = "\t" + c.help
		}
		if _, err := fmt.Fprintln(w, c.word+c.help); err != nil {
			return err
		}
	}
	return nil
}

// directive tells the shell what to complete by itself.
func directive(w io.Writer, what ...any) error {
	_, err := fmt.Fprintln(w, what...)
	return err
}

func child(node *kong.Node, name string) *kong.Node {
	for _, c := range node.Children {
		if c.Name == name && !c.Hidden {
			return c
		}
	}
	return nil
}

// flags returns the options of a command and of the program.
func flags(node *kong.Node) (all []candidate) {
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			all = append(all, candidate{"--" + f.Name, f.Help})
		}
	}
	return all
}

// valued returns the option with this name, as in "--wait" or "-w", or nil if there is none or it has no value.
func valued(node *kong.Node, name string) *kong.Flag {
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			if !f.IsBool() && (name == "--"+f.Name || f.Short != 0 && name == "-"+string(f.Short)) {
				return f
			}
		}
	}
	return nil
}

// values returns the values of an option that has a fixed set of them.
func values(f *kong.Flag, prefix string) (all []candidate) {
	if f.Enum == "" {
		return nil
	}
	for _, value := range f.EnumSlice() {
		all = append(all, candidate{word: prefix + value})
	}
	return all
}

// tabTimeout is how long the tab key may wait for the daemon.
const tabTimeout = 500 * time.Millisecond

// liveCandidates asks the daemon for keys, connections or, with the command names, names of connections. It returns none on an error, which would garble the command line.
func liveCandidates(ctx context.Context, g *globals, command, prefix string) (all []candidate) {
	a, err := newAdmin(ctx, g)
	if err != nil {
		return nil
	}
	switch command {
	case "lock", "locks", "waiters", "release", "history", "watch":
		p, err := a.keys(ctx, &api.KeyQuery{Prefix: prefix, Order: api.ByKey, Limit: api.DefaultLimit})
		if err != nil {
			return nil
		}
		for _, k := range p.entries {
			all = append(all, candidate{k.Key, fmt.Sprintf("held %s, %s", span(k.HeldSeconds), some(k.Waiters, "waiter"))})
		}
	case "kick", "names":
		p, err := a.connections(ctx, &api.ConnectionQuery{Limit: api.MaxLimit})
		if err != nil {
			return nil
		}
		for i := range p.entries {
			c := &p.entries[i]
			switch {
			case command == "kick":
				all = append(all, candidate{number(c.Connection), nameAndAddress(&c.Peer) + ", " + holdsAndWaits(c)})
			case c.Name != "":
				all = append(all, candidate{c.Name, c.Address + ", " + holdsAndWaits(c)})
			}
		}
	}
	return all
}
