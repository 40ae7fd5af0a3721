package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/mattn/go-isatty"

	"dreadlock/server/api"
)

// releaseCommand takes a key from its holder.
type releaseCommand struct {
	Key        string `arg:"" help:"The key."`
	Connection uint64 `placeholder:"N" help:"Only if this connection holds the key, as dreadlockctl waiters shows it."`
	Token      uint64 `placeholder:"N" help:"Only if it is held by the grant with this fencing token."`
	Yes        bool   `short:"y" help:"Do not ask."`
	jsonOption
}

// Help has examples.
func (*releaseCommand) Help() string {
	return `Examples:

  dreadlockctl release nightly       shows who holds the key and who waits for it, and asks
  dreadlockctl release nightly -y    takes it from whoever holds it, without asking
  dreadlockctl release nightly -y --connection 17

The key goes to the first waiter at once. Its holder keeps its connection and its other keys, and is told nothing: it may continue
its work until it gives the key up, which is then refused with "not owner" or "not locked". So release a key only where two at once
do no harm, or where the holder is known to hang; its connection remains, unlike with dreadlockctl kick.

If another client has got the key in the meantime, that one keeps it. --yes is required if the input is not a terminal. The exit
status is 1 if the key was not released.`
}

// Run releases the key.
func (c *releaseCommand) Run(ctx context.Context, s *streams, g *globals) error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if !c.Yes && !isatty.IsTerminal(s.stdin.Fd()) {
		return badOption("release asks before it takes a key from its holder, but the input is not a terminal: give --yes")
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	query := url.Values{}
	if c.Connection != 0 {
		query.Set("connection", strconv.FormatUint(c.Connection, 10))
	}
	if c.Token != 0 {
		query.Set("token", strconv.FormatUint(c.Token, 10))
	}
	if !c.Yes {
		agreed, err := c.confirm(ctx, s, a, query)
		if err != nil {
			return c.explain(err)
		}
		if !agreed {
			return &exit{exitFailed, nil}
		}
	}
	var released api.Release
	if err := a.post(ctx, &released, query, "keys", c.Key, "release"); err != nil {
		return c.explain(err)
	}
	if c.JSON {
		return printJSON(s.stdout, released)
	}
	text := "nobody waited for it"
	if released.Next != nil {
		text = fmt.Sprintf("connection %s has it now, and %s", who(released.Next), waitOn(released.Waiters))
	}
	_, err = fmt.Fprintf(s.stdout, "released %s, which connection %s had for %s: %s\n",
		cell(c.Key, maxCell), who(&released.Holder), span(released.HeldSeconds), text)
	return err
}

// queueShown is the number of waiters that are shown before a key is released.
const queueShown = 10

// confirm shows who holds the key and who waits for it, and asks. What was shown is what the query is for from then on.
func (c *releaseCommand) confirm(ctx context.Context, s *streams, a *admin, query url.Values) (bool, error) {
	var key api.Key
	if err := a.get(ctx, &key, url.Values{"queue": {strconv.Itoa(queueShown)}}, "keys", c.Key); err != nil {
		return false, err
	}
	if c.Connection != 0 && key.Holder.Connection != api.ConnectionID(c.Connection) || c.Token != 0 && key.Token != c.Token {
		return false, &conflict{fmt.Sprintf("connection %s has it", who(&key.Holder))}
	}
	if err := writeWaiters(s.stderr, &key); err != nil {
		return false, err // nobody can have read it
	}
	query.Set("connection", number(key.Holder.Connection))
	query.Set("token", strconv.FormatUint(key.Token, 10))
	return ask(s, bufio.NewReader(s.stdin), "release it?")
}

// explain says in the words of the command why the key was not released.
func (c *releaseCommand) explain(err error) error {
	var changed *conflict
	switch {
	case errors.Is(err, errNotFound):
		return failed(exitFailed, "nobody holds the key %s", cell(c.Key, maxCell))
	case errors.As(err, &changed):
		return failed(exitFailed, "%s was not released: another client holds it: %w", cell(c.Key, maxCell), err)
	}
	return err
}

// waitOn says how many wait.
func waitOn(n int) string {
	switch n {
	case 0:
		return "nobody waits"
	case 1:
		return "1 client waits"
	}
	return count(n) + " clients wait"
}
