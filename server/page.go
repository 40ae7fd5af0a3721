package server

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dreadlock/server/api"
)

// rank is the place of a row in an order: the greater number first, and of equal numbers the smaller name.
type rank struct {
	number int64
	name   string
}

// compare compares two ranks: -1 if r comes first.
func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(o.number, r.number), cmp.Compare(r.name, o.name))
}

// precedes reports whether a row with this rank comes before one with the number and the name.
func (r rank) precedes(number int64, name []byte) bool {
	return r.number > number || r.number == number && r.name < string(name)
}

// follows reports whether a row with this rank comes after one with the number and the name.
func (r rank) follows(number int64, name []byte) bool {
	return r.number < number || r.number == number && r.name > string(name)
}

// ranked is a row of a page. Rows of one name are the same thing, seen at different times.
type ranked interface{ rank() rank }

// page collects the first rows of an order after a cursor, out of any number that come in any order. It keeps at most
// twice as many as are asked for.
type page[T ranked] struct {
	limit    int
	after    *rank // nil for the first page
	rows     []T
	last     *rank // of the rows that fit, once there are enough
	matching int   // rows that came, wanted or not
}

// wants counts a row and reports whether it is to be added. It spares the making of rows that do not fit.
func (p *page[T]) wants(number int64, name []byte) bool {
	p.matching++
	return (p.after == nil || p.after.precedes(number, name)) && (p.last == nil || p.last.follows(number, name))
}

// add adds a row that is wanted.
func (p *page[T]) add(row T) {
	p.rows = append(p.rows, row)
	if len(p.rows) >= 2*p.limit+2 {
		p.trim()
	}
}

// trim sorts the rows and drops those beyond the limit but one, which says that there are more. Of rows with one name it
// keeps the first.
func (p *page[T]) trim() {
	slices.SortFunc(p.rows, func(a, b T) int { return a.rank().compare(b.rank()) })
	names := make(map[string]bool, len(p.rows))
	p.rows = slices.DeleteFunc(p.rows, func(row T) bool {
		name := row.rank().name
		if names[name] {
			return true
		}
		names[name] = true
		return false
	})
	if len(p.rows) > p.limit {
		p.rows = slices.Delete(p.rows, p.limit+1, len(p.rows))
		last := p.rows[p.limit].rank()
		p.last = &last
	}
}

// merge adds what other pages of the same query have collected, and ends the collection. It returns the rows and the
// cursor of the next page, empty if this is the last.
func (p *page[T]) merge(order string, others []*page[T]) (rows []T, next string) {
	rows = []T{}
	for _, o := range others {
		rows = append(rows, o.rows...)
		p.matching += o.matching
	}
	p.rows = rows
	p.trim()
	if len(p.rows) > p.limit {
		p.rows = p.rows[:p.limit]
		next = cursor(order, p.rows[p.limit-1].rank())
	}
	return p.rows, next
}

// cursor returns the cursor of the page after a row.
func cursor(order string, last rank) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s %d %s", order, last.number, last.name))
}

// parseCursor returns the rank that a cursor of that order stands for, nil for an empty one.
func parseCursor(order, text string) (*rank, error) {
	if text == "" {
		return nil, nil
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Split(string(plain), " ")
	if err != nil || len(parts) != 3 || parts[0] != order {
		return nil, fmt.Errorf("%w: cursor %.64q: want the next of a page in the same order", api.ErrQuery, text)
	}
	number, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: cursor %.64q: want the next of a page", api.ErrQuery, text)
	}
	return &rank{number, parts[2]}, nil
}

// parseLimit returns the length of a page.
func parseLimit(limit int) (int, error) {
	switch {
	case limit == 0:
		return api.DefaultLimit, nil
	case limit < 0 || limit > api.MaxLimit:
		return 0, fmt.Errorf("%w: limit %d: want 1 to %d", api.ErrQuery, limit, api.MaxLimit)
	}
	return limit, nil
}
