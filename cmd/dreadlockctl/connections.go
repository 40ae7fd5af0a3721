package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dreadlock/server/api"
)

// connectionsCommand lists connections.
type connectionsCommand struct {
	Address string `placeholder:"PREFIX" help:"Only clients whose HOST:PORT begins with PREFIX."`
	Client  string `placeholder:"TEXT" help:"Only clients whose name, address, identity or owner contains TEXT."`
	Holding bool   `help:"Only connections that hold a key."`
	Waiting bool   `help:"Only connections that wait for a key."`
	Sort    string `default:"connection" enum:"connection,held,wait" placeholder:"ORDER" help:"connection: by number; held: the one with the most keys first; wait: the longest wait first (${default})."`
	listOptions
	jsonOption
}

// Help has examples.
func (*connectionsCommand) Help() string {
	return `Examples:

  dreadlockctl connections --holding            who holds keys
  dreadlockctl connections --waiting            who waits, and for what
  dreadlockctl connections --address 10.0.0.7:  the connections of one host
  dreadlockctl connections --client ann@        those whose names contain ann@

CONN is the number of the connection, which dreadlockctl kick takes; numbers are never reused. States: idle, no command is
being executed; waiting, for a key; lagging, the client does not read its answers; ending, half-closed with answers still
owed.`
}

// Run lists connections.
func (c *connectionsCommand) Run(ctx context.Context, s *streams, g *globals) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	connections, err := collect(limit, func(limit int, cursor string) (page[api.Connection], error) {
		return a.connections(ctx, &api.ConnectionQuery{
			Address: c.Address, Client: c.Client, Holding: c.Holding, Waiting: c.Waiting,
			Order: api.ConnectionOrder(c.Sort), Limit: limit, Cursor: cursor,
		})
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, api.ConnectionPage{
			Connections: connections.entries, Matching: connections.matching, Next: connections.next,
		})
	}
	if len(connections.entries) == 0 {
		_, err := fmt.Fprintln(s.stdout, "no connections match")
		return err
	}
	return writeConnections(s.stdout, &connections)
}

// connections requests a page of connections.
func (a *admin) connections(ctx context.Context, q *api.ConnectionQuery) (page[api.Connection], error) {
	query := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	for name, wanted := range map[string]bool{"holding": q.Holding, "waiting": q.Waiting} {
		if wanted {
			query.Set(name, "true")
		}
	}
	given := map[string]string{"address": q.Address, "client": q.Client, "cursor": q.Cursor}
	if q.Order != api.ByConnection { // which older daemons do not know by name
		given["order"] = string(q.Order)
	}
	setGiven(query, given)
	var p api.ConnectionPage
	err := a.get(ctx, &p, query, "connections")
	return page[api.Connection]{p.Connections, p.Matching, p.Next}, err
}

func writeConnections(w io.Writer, connections *page[api.Connection]) error {
	peer := func(c *api.Connection) *api.Peer { return &c.Peer }
	t := newPeerTable(w, connections.entries, peer, "CONN", "CLIENT", "AGE", "LOOP", "STATE", "HOLDS", "WAITS FOR")
	for i := range connections.entries {
		c := &connections.entries[i]
		wait := "-"
		if c.WaitsFor != "" {
			wait = waits(c, shortCell)
		}
		t.peerRow(&c.Peer, number(c.Connection), c.Address, span(c.ConnectedSeconds), strconv.Itoa(c.Loop), c.State,
			holds(c, shortCell), wait)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return connections.writeRest(w, "connection")
}

// waits names the key that a connection waits for, and says for how long it has: nightly (3.0s).
func waits(c *api.Connection, width int) string {
	return fmt.Sprintf("%s (%s)", cell(c.WaitsFor, width), span(c.WaitedSeconds))
}

// holds names keys of a connection, as many as fit into a cell.
func holds(c *api.Connection, width int) string {
	if c.Held == 0 {
		return "-"
	}
	keys := slices.Sorted(slices.Values(c.Holds))
	named, used := 0, 0
	for named < len(keys) && (named == 0 || used+len(keys[named]) < width) {
		used += len(keys[named]) + 1
		named++
	}
	text := cell(strings.Join(keys[:named], ","), width)
	switch more := c.Held - named; {
	case named == 0:
		return some(c.Held, "key")
	case more > 0:
		return fmt.Sprintf("%s and %s more", text, count(more))
	}
	return text
}
