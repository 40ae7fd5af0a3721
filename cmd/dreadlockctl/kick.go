package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-isatty"

	"dreadlock/server/api"
)

// kickCommand disconnects clients.
type kickCommand struct {
	Connections []api.ConnectionID `arg:"" name:"connection" help:"Numbers of connections, as dreadlockctl connections lists them."`
	Yes         bool               `short:"y" help:"Do not ask."`
	jsonOption
}

// Help has examples.
func (*kickCommand) Help() string {
	return `Examples:

  dreadlockctl kick 5        shows what the client holds, and asks
  dreadlockctl kick 5 7 -y   disconnects two clients without asking

The keys of the client are released at once and go to the next waiters. The client itself may continue its work until it
notices that its connection has ended: kick only where two at once do no harm, or where the client is known to hang.

--yes is required if the input is not a terminal. The exit status is 1 if any of them was not kicked.`
}

// kicked is the result for one connection, in JSON.
type kicked struct {
	Connection api.ConnectionID `json:"connection"`
	Kicked     bool             `json:"kicked"`
	Error      string           `json:"error,omitempty"`
}

// Run disconnects clients one after another.
func (c *kickCommand) Run(ctx context.Context, s *streams, g *globals) error {
	if !c.Yes && !isatty.IsTerminal(s.stdin.Fd()) {
		return badOption("kick asks before it disconnects a client, but the input is not a terminal: give --yes")
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	answers := bufio.NewReader(s.stdin)
	results := []kicked{}
	status := 0
	for _, id := range c.Connections {
		done, err := c.kick(ctx, s, a, answers, id)
		result := kicked{Connection: id, Kicked: done}
		if err != nil {
			if !errors.Is(err, errNotFound) {
				return err // the others would fail in the same way
			}
			err = fmt.Errorf("there is no connection %d", id)
			result.Error = err.Error()
			s.warn("%v", err)
		}
		if !done {
			status = exitFailed
		} else if !c.JSON {
			if _, err := fmt.Fprintf(s.stdout, "kicked %d\n", id); err != nil {
				return err
			}
		}
		results = append(results, result)
	}
	if c.JSON {
		if err := printJSON(s.stdout, results); err != nil {
			return err
		}
	}
	if status != 0 {
		return &exit{status, nil}
	}
	return nil
}

// kick disconnects one client, if the user agrees.
func (c *kickCommand) kick(ctx context.Context, s *streams, a *admin, answers *bufio.Reader, id api.ConnectionID) (bool, error) {
	if !c.Yes {
		var connection api.Connection
		if err := a.get(ctx, &connection, nil, "connections", number(id)); err != nil {
			return false, err
		}
		_, err := fmt.Fprintf(s.stderr, "connection %s, %s, %s\nkick it? [y/N] ",
			who(&connection.Peer), connection.State, holdsAndWaits(&connection))
		if err != nil {
			return false, err // nobody can have read the question
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			return false, nil //nolint:nilerr // the end of the input is a no
		}
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			return false, nil
		}
	}
	err := a.post(ctx, "connections", number(id), "kick")
	return err == nil, err
}

// holdsAndWaits describes what a connection would lose.
func holdsAndWaits(c *api.Connection) string {
	text := "holds nothing"
	if c.Held > 0 {
		text = "holds " + holds(c, maxCell)
	}
	if c.WaitsFor != "" {
		text += ", waits for " + waits(c, maxCell)
	}
	return text
}
