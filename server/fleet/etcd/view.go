package etcd

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"dreadlock/server/fleet"
)

// view is what has been seen of the fleet in one session. It belongs to session.run; the session's mutex guards it, for those who look.
type view struct {
	names    *names
	lease    int64
	revision int64 // up to here all is seen
	listed   int64 // the revision of the last list
	places   map[string]*seenPlace
	daemons  map[int64]*seenDaemon
	joins    *joins
}

// seenPlace is a place that exists.
type seenPlace struct {
	change fleet.Change // how it came
}

// seenDaemon is a daemon of the fleet.
type seenDaemon struct {
	daemonValue
	seen   time.Time // when its last sign of life came
	places int
}

// daemonValue is what a daemon writes about itself, as JSON.
type daemonValue struct {
	Address string `json:"address"`
	Version string `json:"version"`
	Space   string `json:"space"`
	// Beat counts the signs of life.
	Beat uint64 `json:"beat"`
}

func newView(n *names, lease int64, j *joins) *view {
	return &view{names: n, lease: lease, joins: j, places: make(map[string]*seenPlace), daemons: make(map[int64]*seenDaemon)}
}

// findings are what a view has found in events, beside changes.
type findings struct {
	changes []fleet.Change
	beat    uint64 // the last sign of life of this daemon that was seen, 0 for none
	dead    bool   // the entry of this daemon is gone, and so is its lease
	lost    bool   // events were lost
	again   []operation
}

// show takes events of the watch, of whole revisions, up to one.
func (v *view) show(events []*mvccpb.Event, revision int64, now time.Time) (f findings) {
	before := v.revision
	for _, e := range events {
		if e.Kv.ModRevision <= before {
			continue
		}
		v.revision = max(v.revision, e.Kv.ModRevision)
		if key, p, ok := v.names.parsePlace(e.Kv.Key); ok {
			v.showPlace(e, key, p, &f)
		} else if lease, ok := v.names.parseDaemon(e.Kv.Key); ok {
			v.showDaemon(e, lease, now, &f)
		}
	}
	v.revision = max(v.revision, revision)
	return f
}

func (v *view) showPlace(e *mvccpb.Event, key []byte, p fleet.Place, f *findings) {
	name := string(e.Kv.Key)
	known := v.places[name]
	switch {
	case e.Type == mvccpb.DELETE && known != nil:
		v.remove(name, f)
	case e.Type == mvccpb.DELETE:
		f.lost = true
		f.again = append(f.again, v.joins.vanished(name)...)
	case known != nil && known.change.Revision == uint64(e.Kv.CreateRevision): // it was written again
	case known != nil, e.Kv.CreateRevision != e.Kv.ModRevision:
		f.lost = true // the list will have it as it is
	default:
		v.add(name, changeOf(e.Kv, key, p), f)
	}
}

func (v *view) showDaemon(e *mvccpb.Event, lease int64, now time.Time, f *findings) {
	if e.Type == mvccpb.DELETE {
		delete(v.daemons, lease)
		f.dead = f.dead || lease == v.lease
		return
	}
	d := v.daemons[lease]
	if d == nil {
		d = &seenDaemon{places: v.placesOf(lease)}
		v.daemons[lease] = d
	}
	d.seen = now
	d.daemonValue = daemonValue{}
	_ = json.Unmarshal(e.Kv.Value, &d.daemonValue) // another version may write something else
	if lease == v.lease {
		f.beat = d.Beat
	}
}

// list takes all that there is at a revision. What has changed since it was last looked is found as if it had been watched: places of one
// key that are gone go from the last to the first, so that none of them is the first of its line in between.
func (v *view) list(kvs []*mvccpb.KeyValue, revision int64, now time.Time) (f findings) {
	if revision < v.revision { // of a member that lags: a watch from there on shows the rest
		return f
	}
	v.revision, v.listed = revision, revision
	there := make(map[string]bool, len(kvs))
	daemons := make(map[int64]bool)
	var came []fleet.Change
	for _, kv := range kvs {
		name := string(kv.Key)
		if key, p, ok := v.names.parsePlace(kv.Key); ok {
			if known := v.places[name]; known == nil || known.change.Revision != uint64(kv.CreateRevision) {
				came = append(came, changeOf(kv, key, p)) // perhaps it has gone meanwhile, and was asked for again
			} else {
				there[name] = true
			}
		} else if lease, ok := v.names.parseDaemon(kv.Key); ok {
			daemons[lease] = true
			v.showDaemon(&mvccpb.Event{Type: mvccpb.PUT, Kv: kv}, lease, now, &f)
		}
	}
	var gone []fleet.Change
	for name, p := range v.places {
		if !there[name] {
			gone = append(gone, p.change)
		}
	}
	slices.SortFunc(gone, func(a, b fleet.Change) int { return compare(b, a) })
	for _, c := range gone {
		v.remove(v.names.place(c.Key, c.Place), &f)
	}
	slices.SortFunc(came, compare)
	for _, c := range came {
		v.add(v.names.place(c.Key, c.Place), c, &f)
	}
	for lease := range v.daemons {
		if !daemons[lease] {
			delete(v.daemons, lease)
			f.dead = f.dead || lease == v.lease
		}
	}
	f.again = append(f.again, v.joins.unseen(revision)...)
	return f
}

func (v *view) add(name string, c fleet.Change, f *findings) {
	v.places[name] = &seenPlace{change: c}
	v.joins.seen(name)
	if d := v.daemons[c.Place.Lease]; d != nil {
		d.places++
	}
	f.changes = append(f.changes, c)
}

func (v *view) remove(name string, f *findings) {
	c := v.places[name].change
	c.Gone = true
	delete(v.places, name)
	if d := v.daemons[c.Place.Lease]; d != nil {
		d.places--
	}
	f.changes = append(f.changes, c)
}

// placesOf counts the places of a daemon that has just been seen for the first time.
func (v *view) placesOf(lease int64) (n int) {
	for _, p := range v.places {
		if p.change.Place.Lease == lease {
			n++
		}
	}
	return n
}

func changeOf(kv *mvccpb.KeyValue, key []byte, p fleet.Place) fleet.Change {
	return fleet.Change{Key: key, Place: p, Try: string(kv.Value) == tryValue, Revision: uint64(kv.CreateRevision)}
}

// compare orders places by when they were made.
func compare(a, b fleet.Change) int {
	return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Place.Seq, b.Place.Seq))
}
