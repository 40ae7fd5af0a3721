package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"dreadlock/server/api"
)

// table writes rows in aligned columns.
type table struct {
	*tabwriter.Writer
	names, identities bool // the last columns are for the names of clients, and for who they are
}

// newTable begins a table, with a row of heads if there are any.
func newTable(w io.Writer, heads ...string) table {
	t := table{Writer: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(heads) > 0 {
		t.row(heads...)
	}
	return t
}

// newPeerTable begins a table with a row for each of the entries, which are about a client each. It has a column for names,
// and one for identities, if any client has one.
func newPeerTable[E any](w io.Writer, entries []E, peer func(*E) *api.Peer, heads ...string) table {
	t := newTable(w)
	for i := range entries {
		p := peer(&entries[i])
		t.names, t.identities = t.names || p.Name != "", t.identities || p.Identity != ""
	}
	if t.names {
		heads = append(heads, "NAME")
	}
	if t.identities {
		heads = append(heads, "IDENTITY")
	}
	t.row(heads...)
	return t
}

// peerRow adds the row of a client.
func (t table) peerRow(p *api.Peer, cells ...string) {
	if t.names {
		cells = append(cells, nameCell(p.Name))
	}
	if t.identities {
		cells = append(cells, nameCell(p.Identity))
	}
	t.row(cells...)
}

// nameCell is a name in a column, which may be empty.
func nameCell(name string) string {
	if name == "" {
		return "-"
	}
	return shortName(name)
}

// shortName shortens a name in the middle, if it is long: user@host:pid:command has much to tell at both ends.
func shortName(name string) string {
	runes := []rune(name)
	if len(runes) <= maxName {
		return name
	}
	const after = (maxName - 1) / 2
	return string(runes[:maxName-1-after]) + "…" + string(runes[len(runes)-after:])
}

// who is a connection in a sentence: 5 (10.0.0.1:40001), or 5 (nightly@db1, 10.0.0.1:40001) if the client has a name; unknown if
// it is one before the daemon started. It may be another daemon of the fleet.
func who(p *api.Peer) string {
	if p.Connection == 0 {
		return clientCell(p)
	}
	return fmt.Sprintf("%d (%s)", p.Connection, nameAndAddress(p))
}

// daemonName is another daemon of the fleet, in a cell.
func daemonName(p *api.Peer) string { return "daemon " + whereDaemon(p) }

// whereDaemon is where another daemon of the fleet serves, or else its lease.
func whereDaemon(p *api.Peer) string { return cmp.Or(p.Address, p.Daemon) }

// connectionCell is the number of a connection in a column. Another daemon of the fleet has none, nor has a holder of before the start.
func connectionCell(id api.ConnectionID) string {
	if id == 0 {
		return "-"
	}
	return number(id)
}

// clientCell is who a client is, in a cell beside its connection.
func clientCell(p *api.Peer) string {
	switch {
	case p.Daemon != "":
		return daemonName(p)
	case p.Connection == 0:
		return "unknown"
	}
	return p.Address
}

// nameAndAddress is the client of a connection in a sentence: its name and its identity, where it has them, and its address.
func nameAndAddress(p *api.Peer) string {
	var parts []string
	for _, name := range []string{p.Name, p.Identity} {
		if name != "" {
			parts = append(parts, shortName(name))
		}
	}
	return strings.Join(append(parts, p.Address), ", ")
}

// nameOrAddress is the shortest that tells people who a client is.
func nameOrAddress(p *api.Peer) string { return cmp.Or(p.Name, p.Identity, p.Address) }

// row adds a row.
func (t table) row(cells ...string) {
	_, _ = fmt.Fprintln(t.Writer, strings.Join(cells, "\t")) // Flush has the error
}

// printJSON writes a value as JSON.
func printJSON(w io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

// span formats a duration in seconds.
func span(seconds float64) string { return api.Age(seconds) }

// timeout formats the timeout of a wait. Clients that wait without a limit ask for the longest timeout there is.
func timeout(seconds float64) string {
	const century = 100 * 365 * 24 * 3600
	if seconds > century {
		return "never"
	}
	return span(seconds)
}

// count formats a number with thousands separators.
func count[T int | uint64](n T) string { return humanize.Comma(int64(n)) }

// number formats the number of a connection.
func number(id api.ConnectionID) string { return strconv.FormatUint(uint64(id), 10) }

// some formats a number of things: "1 key", "2 keys".
func some[T int | uint64](n T, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return count(n) + " " + thing + "s"
}

// maxCell is how many characters of a key are shown. A key may have 9,979, and its column would be as wide.
const maxCell = 64

// maxName is how many characters of a client's name or identity are shown, of 128: enough for most. They come last in a row.
// shortCell is the same for keys of a connection.
const (
	maxName   = 40
	shortCell = 20
)

// cell shortens a text to at most width characters, with an ellipsis.
func cell(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:max(width-1, 0)]) + "…"
}

// page is a page of a list, of keys or of connections.
type page[E any] struct {
	entries  []E
	matching int // number of all entries, on this page or not
	next     string
}

// collect fetches pages until it has limit entries, or all if limit is 0.
func collect[E any](limit int, fetch func(limit int, cursor string) (page[E], error)) (all page[E], err error) {
	all.entries = []E{}
	for {
		size := api.MaxLimit
		if limit > 0 {
			size = min(size, limit-len(all.entries))
		}
		p, err := fetch(size, all.next)
		if err != nil {
			return all, err
		}
		all.entries = append(all.entries, p.entries...)
		all.matching, all.next = p.matching, p.next
		if p.next == "" || limit > 0 && len(all.entries) >= limit {
			return all, nil
		}
	}
}

// listOptions limit the length of a list.
type listOptions struct {
	Limit *int `placeholder:"N" help:"Show at most N (${default_limit})." xor:"length"`
	All   bool `help:"Show all." xor:"length"`
}

// limit returns the limit, 0 for none.
func (o *listOptions) limit() (int, error) {
	switch {
	case o.All:
		return 0, nil
	case o.Limit == nil:
		return api.DefaultLimit, nil
	case *o.Limit < 1:
		return 0, badOption("--limit %d: want at least 1, or --all", *o.Limit)
	}
	return *o.Limit, nil
}

// writeRest writes how many entries are not shown, if there are any.
func (p *page[E]) writeRest(w io.Writer, thing string) error {
	if p.next == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "%s of %s; --all shows all\n", count(len(p.entries)), some(p.matching, thing))
	return err
}
