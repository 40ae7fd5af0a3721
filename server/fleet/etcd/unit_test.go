package etcd

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	"dreadlock/server/fleet"
)

// What a name says is what it was made of, whatever the key is.
func TestNames(t *testing.T) {
	n := newNames(DefaultPrefix)
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")
		p := fleet.Place{Lease: rapid.Int64Range(1, 1<<62).Draw(t, "lease"), Seq: rapid.Uint64().Draw(t, "seq")}
		gotKey, got, ok := n.parsePlace([]byte(n.place(key, p)))
		if !ok || got != p || !bytes.Equal(gotKey, key) {
			t.Fatalf("%q of %s: got %q of %s, %t", key, p, gotKey, got, ok)
		}
		if lease, ok := n.parseDaemon([]byte(n.daemon(p.Lease))); !ok || lease != p.Lease {
			t.Fatalf("daemon %x: got %x", p.Lease, lease)
		}
		if space, ok := parseSpace(spaceText(p.Seq)); p.Seq != 0 && (!ok || space != p.Seq) {
			t.Fatalf("lock space %x: got %x", p.Seq, space)
		}
	})
	for _, name := range []string{"", "x", "/dreadlock/q/", "/dreadlock/q/a", "/dreadlock/q//1.1", "/dreadlock/q/a/1", "/dreadlock/q/a/.1", "/dreadlock/q/a/1.",
		"/dreadlock/q/a/-1.1", "/dreadlock/q/a/0.1", "/dreadlock/q/a/x.1", "/dreadlock/q/a/1.-1", "/dreadlock/d/a/1.1"} {
		if _, p, ok := n.parsePlace([]byte(name)); ok {
			t.Errorf("%q is place %s", name, p)
		}
	}
	for _, name := range []string{"/dreadlock/d/", "/dreadlock/d/0", "/dreadlock/d/x", "/dreadlock/q/1", "1"} {
		if lease, ok := n.parseDaemon([]byte(name)); ok {
			t.Errorf("%q is daemon %x", name, lease)
		}
	}
	for _, text := range []string{"", "0000000000000000", "1", "000000000000000g"} {
		if space, ok := parseSpace(text); ok {
			t.Errorf("%q is lock space %x", text, space)
		}
	}
}

func put(name string) operation { return operation{name: name, put: true} }
func del(name string) operation { return operation{name: name} }

func texts(group []operation) (all []string) {
	for _, o := range group {
		text := "-" + o.name
		if o.put {
			text = "+" + o.name
		}
		if o.while != "" {
			text += "?" + o.while
		}
		all = append(all, text)
	}
	return all
}

// Groups are as large as they may be, no name is in one of them twice, and the order of what concerns a name stays.
func TestGroups(t *testing.T) {
	refuse := operation{name: "try", while: "own"}
	for _, test := range []struct {
		what   string
		queue  []operation
		puts   bool
		groups [][]string // until the queue has nothing that may be written
		left   []string
	}{
		{"one after the other", []operation{put("a"), del("b"), refuse}, true, [][]string{{"+a", "-b", "-try?own"}}, nil},
		{"made and left", []operation{put("a"), del("a"), put("b")}, true, [][]string{{"+a"}, {"-a", "+b"}}, nil},
		{"left, then refused", []operation{del("own"), refuse, put("b")}, true, [][]string{{"-own"}, {"-try?own", "+b"}}, nil},
		{"refused, then left", []operation{refuse, del("own")}, true, [][]string{{"-try?own"}, {"-own"}}, nil},
		{"refused and left by its own", []operation{refuse, del("try")}, true, [][]string{{"-try?own"}, {"-try"}}, nil},
		{"no puts", []operation{put("a"), del("b"), put("c"), refuse}, false, [][]string{{"-b", "-try?own"}}, []string{"+a", "+c"}},
		{"no puts, nor what comes after", []operation{put("a"), del("a"), put("own"), refuse, del("c")}, false, [][]string{{"-c"}}, []string{"+a", "-a", "+own", "-try?own"}},
	} {
		w := &writer{wake: make(chan struct{}, 1)}
		w.add(test.queue...)
		var groups [][]string
		for group := w.take(test.puts); len(group) > 0; group = w.take(test.puts) {
			groups = append(groups, texts(group))
		}
		if fmt.Sprint(groups) != fmt.Sprint(test.groups) || !slices.Equal(texts(w.queue), test.left) {
			t.Errorf("%s: groups %v, and %v stay; want %v and %v", test.what, groups, texts(w.queue), test.groups, test.left)
		}
	}
	w := &writer{wake: make(chan struct{}, 1)}
	for i := range 300 {
		w.add(put(fmt.Sprint(i)))
	}
	for _, want := range []int{127, 127, 46, 0} {
		if n := len(w.take(true)); n != want {
			t.Errorf("a group of %d, want %d", n, want)
		}
	}
	for i := range 100 {
		w.add(put(fmt.Sprint(i) + strings.Repeat("x", 10_000)))
	}
	for group := w.take(true); len(group) > 0; group = w.take(true) {
		size := 0
		for i := range group {
			size += group[i].size()
		}
		if size > maxTransaction || len(group) < 40 && len(w.queue) > 0 {
			t.Errorf("a group of %d operations, %d bytes", len(group), size)
		}
	}
	w.add(put(strings.Repeat("x", 2*maxTransaction)))
	if len(w.take(true)) != 1 {
		t.Error("what is too large on its own is never written")
	}
}

// viewTest has a view and what it has shown.
type viewTest struct {
	*view
	tb       testing.TB
	revision int64
}

func newViewTest(tb testing.TB) *viewTest {
	n := newNames("/p")
	return &viewTest{view: newView(&n, 1, newJoins()), tb: tb}
}

func (v *viewTest) kv(lease int64, seq uint64, made, written int64) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte(v.names.place([]byte("k"), fleet.Place{Lease: lease, Seq: seq})), CreateRevision: made, ModRevision: written,
	}
}

func (v *viewTest) came(lease int64, seq uint64) *mvccpb.Event {
	v.revision++
	return &mvccpb.Event{Type: mvccpb.PUT, Kv: v.kv(lease, seq, v.revision, v.revision)}
}

func (v *viewTest) went(lease int64, seq uint64) *mvccpb.Event {
	v.revision++
	return &mvccpb.Event{Type: mvccpb.DELETE, Kv: v.kv(lease, seq, 0, v.revision)}
}

// want checks changes, as "+lease.seq@revision" or "-lease.seq".
func (v *viewTest) want(f findings, want ...string) {
	v.tb.Helper()
	var got []string
	for _, c := range f.changes {
		if c.Gone {
			got = append(got, "-"+c.Place.String())
		} else {
			got = append(got, fmt.Sprintf("+%s@%d", c.Place, c.Revision))
		}
	}
	if !slices.Equal(got, want) {
		v.tb.Errorf("it shows %v, want %v", got, want)
	}
}

func TestViewOfEvents(t *testing.T) {
	v := newViewTest(t)
	first, second := v.came(2, 1), v.came(1, 7)
	v.want(v.show([]*mvccpb.Event{first, second}, 2, time.Now()), "+2.1@1", "+1.7@2")
	v.want(v.show([]*mvccpb.Event{first, second}, 2, time.Now())) // not newer
	again := &mvccpb.Event{Type: mvccpb.PUT, Kv: v.kv(2, 1, 1, 3)}
	v.revision = 3
	f := v.show([]*mvccpb.Event{again}, 3, time.Now())
	if v.want(f); f.lost {
		t.Error("a place that is written again is taken for lost events")
	}
	one := []*mvccpb.Event{v.came(1, 8), v.went(2, 1), v.went(1, 7)}
	for _, e := range one { // one transaction
		e.Kv.ModRevision = 4
	}
	one[0].Kv.CreateRevision = 4
	v.want(v.show(one, 4, time.Now()), "+1.8@4", "-2.1", "-1.7")
	v.revision = 4
	if f := v.show([]*mvccpb.Event{{Type: mvccpb.PUT, Kv: v.kv(1, 8, 5, 5)}}, 5, time.Now()); !f.lost || len(f.changes) > 0 {
		t.Errorf("a place that was made once more, and whose end was not seen: %+v", f)
	}

	v.joins.add(operation{name: string(v.kv(1, 9, 0, 0).Key), put: true, seq: 9})
	v.revision = 5
	f = v.show([]*mvccpb.Event{v.went(1, 9)}, 6, time.Now())
	v.want(f)
	if !f.lost || len(f.again) != 1 || f.again[0].seq != 9 {
		t.Errorf("a place of ours that went without having come: %+v", f)
	}
	f = v.show([]*mvccpb.Event{{Type: mvccpb.PUT, Kv: v.kv(3, 1, 1, 7)}}, 7, time.Now())
	v.want(f)
	if !f.lost {
		t.Error("a place that was made before is there, and no events are taken for lost")
	}
}

// What a list shows that is not known comes in the order in which it was made; what is gone goes from the last to the first.
func TestViewOfList(t *testing.T) {
	v := newViewTest(t)
	kv := v.kv
	v.want(v.list([]*mvccpb.KeyValue{kv(1, 2, 3, 3), kv(2, 1, 5, 5), kv(1, 1, 3, 3), kv(3, 1, 2, 9)}, 10, time.Now()),
		"+3.1@2", "+1.1@3", "+1.2@3", "+2.1@5")
	v.want(v.list([]*mvccpb.KeyValue{kv(1, 2, 3, 3)}, 9, time.Now())) // older than what is known
	v.want(v.list([]*mvccpb.KeyValue{kv(1, 1, 3, 3), kv(4, 1, 12, 12)}, 13, time.Now()), "-2.1", "-1.2", "-3.1", "+4.1@12")
	v.want(v.list([]*mvccpb.KeyValue{kv(1, 1, 14, 14), kv(4, 1, 12, 12)}, 14, time.Now()), "-1.1", "+1.1@14") // made once more
	if v.view.revision != 14 || v.listed != 14 || len(v.places) != 2 {
		t.Errorf("revision %d, listed at %d, %d places", v.view.revision, v.listed, len(v.places))
	}
}

// A place that was written before a list and is not in it is asked for again; one that may be written yet is not.
func TestUnseenJoins(t *testing.T) {
	v := newViewTest(t)
	name := func(seq uint64) string { return string(v.kv(1, seq, 0, 0).Key) }
	for seq := uint64(1); seq <= 4; seq++ {
		v.joins.add(operation{name: name(seq), put: true, seq: seq})
	}
	v.joins.written([]operation{put(name(1))}, 5)
	v.joins.written([]operation{put(name(2))}, 6)
	v.joins.written([]operation{put(name(3))}, 5)
	f := v.list([]*mvccpb.KeyValue{v.kv(1, 3, 5, 5)}, 5, time.Now())
	v.want(f, "+1.3@5")
	if len(f.again) != 1 || f.again[0].seq != 1 {
		t.Errorf("asked for again: %v, want the first", texts(f.again))
	}
	if again := v.joins.unseen(5); again != nil {
		t.Errorf("asked for twice: %v", texts(again))
	}
	if again := v.joins.unseen(6); len(again) != 1 || again[0].seq != 2 {
		t.Errorf("asked for again: %v, want the second", texts(again))
	}
}

// A daemon whose own entry is gone has no lease any more.
func TestOwnEntryGone(t *testing.T) {
	v := newViewTest(t)
	entry := func(lease, revision int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(v.names.daemon(lease)), Value: []byte(`{"address":"a:1","beat":4}`), CreateRevision: 1, ModRevision: revision}
	}
	both := []*mvccpb.KeyValue{entry(1, 2), entry(2, 2)}
	if f := v.list(both, 2, time.Now()); f.dead || f.beat != 4 || v.daemons[2].Address != "a:1" {
		t.Errorf("it finds %+v", f)
	}
	if f := v.show([]*mvccpb.Event{{Type: mvccpb.DELETE, Kv: entry(2, 3)}}, 3, time.Now()); f.dead || len(v.daemons) != 1 {
		t.Errorf("it finds %+v", f)
	}
	if f := v.show([]*mvccpb.Event{{Type: mvccpb.DELETE, Kv: entry(1, 4)}}, 4, time.Now()); !f.dead {
		t.Errorf("it finds %+v", f)
	}
	v.list(both, 5, time.Now())
	if f := v.list(both[1:], 6, time.Now()); !f.dead {
		t.Errorf("it finds %+v", f)
	}
}

// What fails again and again is not logged each time.
func TestComplaints(t *testing.T) {
	var c complaint
	if !c.isNews("a") || c.isNews("a") || c.isNews("b") {
		t.Error("the first failure is to be logged, and none right after it")
	}
	c.at = c.at.Add(-6 * time.Second)
	if c.isNews("a") || !c.isNews("b") {
		t.Error("after some seconds another reason is news, and the same is not")
	}
	c.at = c.at.Add(-31 * time.Second)
	if !c.isNews("b") {
		t.Error("after a while the same reason is news")
	}
}
