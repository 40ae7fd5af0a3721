package server

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dreadlock/server/api"
)

// rank is the place of a row in an order: the higher number first, and of those with the same the smaller name.
type rank struct {
	number int64
	name   string
}

// before reports whether a row with this rank comes before one with the number and the name.
func before[N string | []byte](r rank, number int64, name N) bool {
	if r.number != number {
		return r.number > number
	}
	return r.name < string(name)
}

func (r rank) compare(o rank) int {
	switch {
	case before(r, o.number, o.name):
		return -1
	case before(o, r.number, r.name):
		return 1
	}
	return 0
}

// row is a row with its rank.
type row[T any] struct {
	rank rank
	data T
}

// page collects the first rows of an order behind a cursor, out of any number that come in any order. It keeps no more
// than twice as many as are asked for.
type page[T any] struct {
	limit    int
	after    *rank // nil for the first page
	rows     []row[T]
	last     rank // of those that are wanted, once there are enough
	full     bool
	matching int // rows that came, wanted or not
}

// wants counts a row and reports whether it is to be added.
func wants[T any, N string | []byte](p *page[T], number int64, name N) bool {
	p.matching++
	if p.after != nil && !before(*p.after, number, name) {
		return false
	}
	return !p.full || !before(p.last, number, name) && (p.last.number != number || p.last.name != string(name))
}

// add adds a row that is wanted.
func (p *page[T]) add(r rank, data T) {
	p.rows = append(p.rows, row[T]{r, data})
	if len(p.rows) >= 2*p.limit+2 {
		p.trim()
	}
}

// trim puts the rows in order and drops those behind the limit, but one, which tells that there are more. Of rows of the
// same name it keeps the first: one that was met twice.
func (p *page[T]) trim() {
	slices.SortFunc(p.rows, func(a, b row[T]) int { return a.rank.compare(b.rank) })
	names := make(map[string]bool, len(p.rows))
	p.rows = slices.DeleteFunc(p.rows, func(r row[T]) bool {
		if names[r.rank.name] {
			return true
		}
		names[r.rank.name] = true
		return false
	})
	if len(p.rows) > p.limit {
		p.rows = p.rows[:p.limit+1]
		p.full, p.last = true, p.rows[p.limit].rank
	}
}

// merge adds what other pages of the same query have collected, and ends the collection. It returns the rows and the
// cursor of the next page, empty if there are no more.
func (p *page[T]) merge(order string, others []*page[T]) (rows []T, next string) {
	for _, o := range others {
		p.rows = append(p.rows, o.rows...)
		p.matching += o.matching
	}
	p.trim()
	if len(p.rows) > p.limit {
		p.rows = p.rows[:p.limit]
		next = cursor(order, p.rows[p.limit-1].rank)
	}
	rows = make([]T, 0, len(p.rows))
	for _, r := range p.rows {
		rows = append(rows, r.data)
	}
	return rows, next
}

// cursor makes the cursor of the page behind a row.
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
