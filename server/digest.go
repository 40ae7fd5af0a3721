package server

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"dreadlock/lockmgr"
)

// digest says in one number what tables have: keys, tokens, holders and queues, and since when. It does not depend on which table has
// which key, so that of a server and that of its successor are the same. It finds mistakes, and not who means harm.
type digest struct {
	sum  uint64
	text []byte // of a key
}

// What holds a key or waits for it, in a digest.
const (
	digestSession byte = iota + 1
	digestFormer
	digestUnknown
	digestPlace
)

// addTable adds all keys of a table.
func (d *digest) addTable(t *lockmgr.Table) {
	t.Each(func(h lockmgr.Holding) {
		d.text = binary.BigEndian.AppendUint64(d.text[:0], uint64(len(h.Key)))
		d.text = append(d.text, h.Key...)
		d.text = binary.BigEndian.AppendUint64(d.text, h.Token)
		d.text = binary.BigEndian.AppendUint64(d.text, uint64(h.Since))
		d.addWho(h.Owner.Tag)
		if h.Closed {
			ended, until := t.Former(h.Owner)
			d.text = append(d.text, digestFormer)
			d.text = binary.BigEndian.AppendUint64(d.text, uint64(ended))
			d.text = binary.BigEndian.AppendUint64(d.text, uint64(until))
		}
		for w := h.First; w != nil; w = w.Next() {
			d.addWho(w.Tag)
			since, timeout := w.Tag.(queued).wait()
			d.text = binary.BigEndian.AppendUint64(d.text, uint64(since))
			d.text = binary.BigEndian.AppendUint64(d.text, uint64(timeout))
		}
		d.sum += xxhash.Sum64(d.text)
	})
}

// addWho adds who holds a key or waits for it.
func (d *digest) addWho(tag any) {
	switch who := tag.(type) {
	case *session:
		d.addNumber(digestSession, uint64(who.id()))
	case *former:
		d.addNumber(digestSession, uint64(who.identity.connection))
	case *request:
		d.addNumber(digestSession, uint64(who.session.id()))
	case unknownHolder:
		d.text = append(d.text, digestUnknown)
	case *place:
		d.addNumber(digestPlace, uint64(who.Lease))
		d.text = binary.BigEndian.AppendUint64(d.text, who.Seq)
	}
}

func (d *digest) addNumber(kind byte, n uint64) {
	d.text = binary.BigEndian.AppendUint64(append(d.text, kind), n)
}

// bytes returns the digest.
func (d *digest) bytes() []byte { return binary.BigEndian.AppendUint64(nil, d.sum) }
