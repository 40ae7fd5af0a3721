package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/mattn/go-isatty"

	"dreadlock/server/api"
)

// kickCommand disconnects clients.
type kickCommand struct {
	Connections []string `arg:"" optional:"" name:"connection" help:"Numbers of connections, as dreadlockctl connections lists them."`
	HolderOf    []string `sep:"none" placeholder:"KEY" help:"Kick the holder of a key."`
	Name        []string `sep:"none" placeholder:"NAME" help:"Kick the clients that have given themselves this name."`
	Yes         bool     `short:"y" help:"Do not ask."`
	jsonOption
}

// Help has examples.
func (*kickCommand) Help() string {
	return `Examples:

  dreadlockctl kick 5        shows what the client holds, and asks
  dreadlockctl kick 5 7 -y   disconnects two clients without asking
  dreadlockctl kick --holder-of nightly
  dreadlockctl kick --name nightly@db1

The keys of the client are released at once, or after --lock-delay of the daemon, and go to the next waiters. The client itself may continue its work until it
notices that its connection has ended: kick only where two at once do no harm, or where the client is known to hang. A client
that waits is told, and dreadlockctl lock then ends with status 77.

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
	numbers, err := c.numbers()
	if err != nil {
		return err
	}
	if !c.Yes && !isatty.IsTerminal(s.stdin.Fd()) {
		return badOption("kick asks before it disconnects a client, but the input is not a terminal: give --yes")
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	found, err := c.find(ctx, a)
	if err != nil {
		return err
	}
	answers := bufio.NewReader(s.stdin)
	results := []kicked{}
	status := 0
	for _, id := range slices.Concat(numbers, found) {
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

// numbers returns the connections that are given by their numbers.
func (c *kickCommand) numbers() ([]api.ConnectionID, error) {
	if len(c.Connections)+len(c.HolderOf)+len(c.Name) == 0 {
		return nil, badOption("kick whom? Give the number of a connection, such as 17, which dreadlockctl connections lists, or " +
			"--holder-of KEY or --name NAME")
	}
	numbers := make([]api.ConnectionID, len(c.Connections))
	for i, text := range c.Connections {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 {
			return nil, badOption("kick %s: want the number of a connection, such as 17, which dreadlockctl connections lists in the "+
				"column CONN; for the holder of a key, give --holder-of KEY", cell(text, maxCell))
		}
		numbers[i] = api.ConnectionID(n)
	}
	for _, key := range c.HolderOf {
		if err := checkKey(key); err != nil {
			return nil, err
		}
	}
	return numbers, nil
}

// find returns the connections that are given by a key that they hold, or by their name.
func (c *kickCommand) find(ctx context.Context, a *admin) (all []api.ConnectionID, err error) {
	for _, wanted := range c.HolderOf {
		var key api.Key
		err := a.get(ctx, &key, url.Values{"queue": {"0"}}, "keys", wanted)
		switch {
		case errors.Is(err, errNotFound):
			return nil, failed(exitFailed, "nobody holds the key %s", cell(wanted, maxCell))
		case err != nil:
			return nil, err
		case key.Holder.Daemon != "":
			return nil, failed(exitFailed, "the key %s is at another daemon of the fleet, %s: kick its holder there, with the --admin of that one",
				cell(wanted, maxCell), whereDaemon(&key.Holder))
		case key.FreesInSeconds > 0:
			return nil, failed(exitFailed, "nobody holds the key %s any more: it is %s", cell(wanted, maxCell), freesIn(&key))
		}
		all = append(all, key.Holder.Connection)
	}
	if len(c.Name) == 0 {
		return all, nil
	}
	connections, err := collect(0, func(limit int, cursor string) (page[api.Connection], error) {
		return a.connections(ctx, &api.ConnectionQuery{Limit: limit, Cursor: cursor})
	})
	if err != nil {
		return nil, err
	}
	for _, wanted := range c.Name {
		before := len(all)
		for i := range connections.entries {
			if connections.entries[i].Name == wanted {
				all = append(all, connections.entries[i].Connection)
			}
		}
		if len(all) == before {
			return nil, failed(exitFailed, "no client has the name %s", cell(wanted, maxCell))
		}
	}
	return all, nil
}

// kick disconnects one client, if the user agrees.
func (c *kickCommand) kick(ctx context.Context, s *streams, a *admin, answers *bufio.Reader, id api.ConnectionID) (bool, error) {
	if !c.Yes {
		var connection api.Connection
		if err := a.get(ctx, &connection, nil, "connections", number(id)); err != nil {
			return false, err
		}
		agreed, err := ask(s, answers, fmt.Sprintf("connection %s, %s, %s\nkick it?",
			who(&connection.Peer), connection.State, holdsAndWaits(&connection)))
		if err != nil || !agreed {
			return false, err
		}
	}
	err := a.post(ctx, nil, nil, "connections", number(id), "kick")
	return err == nil, err
}

// ask asks the user for a yes. Anything else is a no, as is the end of the input.
func ask(s *streams, answers *bufio.Reader, question string) (bool, error) {
	if _, err := fmt.Fprint(s.stderr, question+" [y/N] "); err != nil {
		return false, err // nobody can have read the question
	}
	answer, err := answers.ReadString('\n')
	if err != nil {
		return false, nil //nolint:nilerr // the end of the input is a no
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
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
