package etcd

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"

	"dreadlock/server/fleet"
)

// names are the names of what the fleet has in etcd.
type names struct {
	all     string // prefix of everything that is watched
	places  string // prefix of all places
	daemons string // prefix of all daemons
	space   string
}

func newNames(prefix string) names {
	return names{all: prefix + "/", places: prefix + "/q/", daemons: prefix + "/d/", space: prefix + "/space"}
}

// tryValue is the value of a place that is a try. That of others is empty.
const tryValue = "t"

// place returns the name of a place. The key may have any bytes: what follows the last slash has none.
func (n *names) place(key []byte, p fleet.Place) string {
	var b strings.Builder
	b.Grow(len(n.places) + len(key) + 40)
	b.WriteString(n.places)
	b.Write(key)
	b.WriteByte('/')
	b.WriteString(strconv.FormatInt(p.Lease, 16))
	b.WriteByte('.')
	b.WriteString(strconv.FormatUint(p.Seq, 10))
	return b.String()
}

// parsePlace returns what a name says, and whether it is that of a place.
func (n *names) parsePlace(name []byte) (key []byte, p fleet.Place, ok bool) {
	rest, ok := bytes.CutPrefix(name, []byte(n.places))
	slash := bytes.LastIndexByte(rest, '/')
	if !ok || slash < 1 {
		return nil, p, false
	}
	lease, seq, ok := strings.Cut(string(rest[slash+1:]), ".")
	if !ok {
		return nil, p, false
	}
	if p.Lease, ok = parseLease(lease); !ok {
		return nil, p, false
	}
	var err error
	if p.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil {
		return nil, p, false
	}
	return rest[:slash:slash], p, true
}

// daemon returns the name of a daemon.
func (n *names) daemon(lease int64) string { return n.daemons + leaseText(lease) }

// operation returns what a session was asked for as the writer takes it.
func (n *names) operation(o *fleet.Operation, lease int64) operation {
	op := operation{name: n.place(o.Key, o.Place), put: o.Join}
	if o.Join {
		op.seq = o.Place.Seq
	}
	if o.Try {
		op.value = tryValue
	}
	if o.While > 0 {
		op.while = n.place(o.Key, fleet.Place{Lease: lease, Seq: o.While})
	}
	return op
}

// asked returns what a session was asked for by an operation, and whether it was: a sign of life is nobody's wish.
func (n *names) asked(o *operation) (asked fleet.Operation, ok bool) {
	key, p, ok := n.parsePlace([]byte(o.name))
	if !ok {
		return asked, false
	}
	asked = fleet.Operation{Key: key, Place: p, Join: o.put, Try: o.value == tryValue}
	if o.while != "" {
		_, here, _ := n.parsePlace([]byte(o.while))
		asked.While = here.Seq
	}
	return asked, true
}

// parseDaemon returns the lease of the daemon with that name.
func (n *names) parseDaemon(name []byte) (lease int64, ok bool) {
	rest, ok := bytes.CutPrefix(name, []byte(n.daemons))
	if !ok {
		return 0, false
	}
	return parseLease(string(rest))
}

func leaseText(lease int64) string { return strconv.FormatInt(lease, 16) }

func parseLease(text string) (int64, bool) {
	lease, err := strconv.ParseInt(text, 16, 64)
	return lease, err == nil && lease > 0
}

// spaceText returns the number of a lock space as text.
func spaceText(space uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(space >> (56 - 8*i))
	}
	return hex.EncodeToString(b[:])
}

func parseSpace(text string) (uint64, bool) {
	space, err := strconv.ParseUint(text, 16, 64)
	return space, err == nil && space != 0 && len(text) == 16
}
