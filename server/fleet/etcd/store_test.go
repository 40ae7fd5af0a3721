package etcd

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dreadlock/bench/fleet/etcdtest"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

// A daemon that starts before etcd waits for it, and says so.
func TestWaitsForEtcd(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	m := w.cluster.Members[0]
	m.Kill()
	a := w.join(w.config(), newRecorder(t))
	w.until("the log says so", func() bool { return a.log.has("cannot reach etcd at "+m.URL+": ") && a.log.has(": trying again") })
	if st := a.store.Status(); st.InTouch || !strings.HasPrefix(st.Reason, "cannot reach etcd at "+m.URL) || st.Space != "" || a.store.Space() != 0 {
		t.Errorf("the status is %+v", st)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	w.passes()
	w.keeps(a)
}

// The endpoints of two clusters would be two lock spaces.
func TestTwoClusters(t *testing.T) {
	w, other := startWorld(t, etcdtest.Options{Members: 1}), startWorld(t, etcdtest.Options{Members: 1, Args: []string{"--election-timeout", "2000"}})
	cfg := w.config()
	cfg.Endpoints = append(cfg.Endpoints, other.cluster.Endpoints()...)
	a := w.join(cfg, newRecorder(t))
	w.until("the log says so", func() bool {
		return a.log.has(cfg.Endpoints[0] + " and " + cfg.Endpoints[1] + " are members of two clusters of etcd")
	})
	if a.Session() != nil {
		t.Error("there is a session")
	}
}

func TestVersions(t *testing.T) {
	for version, tooOld := range map[string]bool{
		"3.4.33": true, "3.5.22": true, "3.5.23": false, "3.5.100": false, "3.6.4": true, "3.6.5": false, "3.6.16": false, "3.7.0-rc.0": false,
		"3.10.0": false, "2.3.8": true, "4.0.0": true, "": true, "x": true,
	} {
		if got := isTooOld(version); got != tooOld {
			t.Errorf("%q: too old is %t, want %t", version, got, tooOld)
		}
	}
}

// Members with TLS, which want a certificate, and a user with a password.
func TestTLSAndPassword(t *testing.T) {
	ca, stranger := prototest.NewCA(t), prototest.NewCA(t)
	cert, key := ca.Files(ca.Server("127.0.0.1"))
	caFile := ca.File()
	w := &world{tb: t, ctx: t.Context()}
	var err error
	w.cluster, err = etcdtest.Start(etcdtest.Options{
		Program: program, Dir: t.TempDir(), Members: 1, Scheme: "https",
		Args: []string{"--cert-file", cert, "--key-file", key, "--trusted-ca-file", caFile},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cluster.Stop)
	cfg := w.config()
	cfg.CA = caFile
	cfg.Cert, cfg.Key = ca.Files(ca.Client("daemon"))
	encryption, err := cfg.tls()
	if err != nil {
		t.Fatal(err)
	}
	w.client, err = clientv3.New(clientv3.Config{Endpoints: w.cluster.Endpoints(), TLS: encryption})
	if err != nil {
		t.Fatal(err)
	}
	defer w.client.Close()
	if _, err := w.cluster.AwaitLeader(w.ctx, clientv3.Config{TLS: encryption, Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	w.enableUsers()

	cfg.User, cfg.PasswordFile = "fleet", filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		if err := os.WriteFile(cfg.PasswordFile, []byte(password+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong")
	strange := cfg
	strange.CA = stranger.File()
	a, b := w.join(cfg, newRecorder(t)), w.join(strange, newRecorder(t))
	w.until("the password is refused", func() bool { return a.log.has("authentication failed") })
	w.until("the certificate is refused", func() bool { return b.log.has("certificate signed by unknown authority") })
	if a.Session() != nil || b.Session() != nil {
		t.Error("there is a session")
	}
	b.leave()
	w.members = w.members[:1]
	write("secret")
	w.passes()
	if st := a.store.Status(); !st.InTouch || st.Reason != "" {
		t.Errorf("the status is %+v", st)
	}
	a.store.health.check(w.ctx)
	if st := a.store.Status(); !st.Members[0].Reachable || !strings.HasPrefix(st.Members[0].Endpoint, "https://") {
		t.Errorf("the member is shown as %+v", st.Members[0])
	}
}

// enableUsers has etcd let in nobody without a password, and to a fleet's keys a user who may use nothing else.
func (w *world) enableUsers() {
	w.tb.Helper()
	steps := []func() error{
		func() error { _, err := w.client.UserAdd(w.ctx, "root", "root"); return err },
		func() error { _, err := w.client.UserGrantRole(w.ctx, "root", "root"); return err },
		func() error { _, err := w.client.RoleAdd(w.ctx, "fleet"); return err },
		func() error {
			end := clientv3.GetPrefixRangeEnd(DefaultPrefix + "/")
			_, err := w.client.RoleGrantPermission(w.ctx, "fleet", DefaultPrefix+"/", end, clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := w.client.UserAdd(w.ctx, "fleet", "secret"); return err },
		func() error { _, err := w.client.UserGrantRole(w.ctx, "fleet", "fleet"); return err },
		func() error { _, err := w.client.AuthEnable(w.ctx); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			w.tb.Fatalf("step %d: %v", i, err)
		}
	}
}

// The status names the members of etcd and the daemons.
func TestStatus(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	cfg := w.config()
	cfg.TTL = DefaultTTL
	cfg.Endpoints = cfg.Endpoints[:2] // the third is found by asking these
	a, b := w.join(cfg, newRecorder(t)), w.join(cfg, newRecorder(t))
	w.session(a)
	w.session(b)
	if a.store.Space() == 0 || a.store.Space() != b.store.Space() {
		t.Errorf("the lock spaces are %x and %x", a.store.Space(), b.store.Space())
	}
	p := w.place(a, "a", false)
	for range 3 {
		w.sees(b, "a", w.place(b, "a", true))
	}
	w.sees(a, "a", p)
	w.until("all is known", func() bool {
		st := a.store.Status()
		return len(st.Daemons) == 2 && len(st.Members) == 3 && st.WatchLagSeconds > 0 && st.Places == 1 && st.AllPlaces == 4
	})
	st := a.store.Status()
	if !st.InTouch || st.Reason != "" || st.Store != "etcd" || st.Prefix != DefaultPrefix || st.Space != spaceText(a.store.Space()) || st.TTLSeconds != 10 {
		t.Errorf("the status is %+v", st)
	}
	if st.Lease != leaseText(a.Session().Lease()) || st.LeaseLeftSeconds <= 0 || st.LeaseLeftSeconds > 8 {
		t.Errorf("the lease is %s, for %g s", st.Lease, st.LeaseLeftSeconds)
	}
	if st.Transactions == 0 || st.Operations < 2 || st.Lists != 1 || st.Repeats+st.WatchRestarts != 0 {
		t.Errorf("it counts %+v", st)
	}
	if !slices.Equal(slices.Sorted(maps.Keys(st.Lost)), slices.Sorted(slices.Values(api.LossReasons))) {
		t.Errorf("the reasons are %v", st.Lost)
	}
	for i, d := range st.Daemons {
		m := w.members[i]
		want := api.FleetDaemon{
			Lease: leaseText(m.Session().Lease()), Address: fmt.Sprintf("host%d:6001", i), Version: "test", Space: st.Space, Self: m == a,
			SeenSeconds: d.SeenSeconds, Places: []int{1, 3}[i],
		}
		if d != want || d.SeenSeconds > 10 {
			t.Errorf("daemon %d is %+v, want %+v", i, d, want)
		}
		if got := a.store.Address(m.Session().Lease()); got != want.Address {
			t.Errorf("the address of daemon %d is %q", i, got)
		}
	}
	if got := a.store.Address(1); got != "" {
		t.Errorf("the address of nobody is %q", got)
	}
	leaders := 0
	for _, m := range st.Members {
		if m.Leader {
			leaders++
		}
		if !m.Reachable || m.Error != "" || isTooOld(m.Version) || m.SizeBytes == 0 || m.QuotaBytes != 2<<30 || m.Alarms != nil {
			t.Errorf("a member is %+v", m)
		}
	}
	if leaders != 1 {
		t.Errorf("there are %d leaders", leaders)
	}
	b.leave()
	w.until("the daemon is gone", func() bool { return len(a.store.Status().Daemons) == 1 })
	if st := b.store.Status(); st.InTouch || st.Lost[api.LostStopped] != 1 {
		t.Errorf("the status of one who has left is %+v", st)
	}
}

// History that is never compacted, or not any more, is noticed; and so is a database that is nearly full.
func TestHistoryWarning(t *testing.T) {
	const quota = 16 << 20
	w := startWorld(t, etcdtest.Options{
		Members: 1, Args: []string{"--auto-compaction-retention", "0", "--quota-backend-bytes", fmt.Sprint(quota)},
	})
	a := w.joinAll(1)[0]
	w.until("etcd was looked at", func() bool { return len(a.store.Status().Members) > 0 })
	a.leave() // the test looks itself
	for i := range 300 {
		if _, err := w.client.Put(w.ctx, "x", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := New(w.config())
	if err != nil {
		t.Fatal(err)
	}
	defer s.endpoints.close()
	const says = "etcd does not compact its history"
	warns := func(text string) bool {
		return slices.ContainsFunc(s.Status().Warnings, func(w string) bool { return strings.Contains(w, text) })
	}
	s.health.check(w.ctx)
	if warns(says) {
		t.Error("it warns of a short history")
	}
	s.health.mark, s.health.manyRevisions = 0, 200
	s.health.check(w.ctx)
	if !warns(says) {
		t.Errorf("it does not warn of a history that was never compacted: %v", s.Status().Warnings)
	}
	if _, err := w.client.Compact(w.ctx, 250); err != nil {
		t.Fatal(err)
	}
	s.health.check(w.ctx)
	if warns(says) {
		t.Error("it warns of a history that was compacted")
	}
	s.health.compactTime = time.Nanosecond
	for i := range 50 {
		if _, err := w.client.Put(w.ctx, "x", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.health.check(w.ctx)
	s.health.compactTime = compactTime
	s.health.check(w.ctx)
	if !warns(says) {
		t.Error("it does not warn of a history that is not compacted any more")
	}
	if warns("nearly full") {
		t.Error("it warns of a database that is not full")
	}
	for i := 0; !warns("is nearly full"); i++ {
		if _, err := w.client.Put(w.ctx, fmt.Sprintf("ballast%d", i), strings.Repeat("x", 256<<10)); err != nil {
			t.Fatal(err)
		}
		s.health.check(w.ctx)
	}
}

// An answer to a renewal that comes too late counts for nothing.
func TestExtend(t *testing.T) {
	se := &session{}
	now := fleet.Now()
	in := func(d time.Duration) time.Duration { return now + d }
	se.until.Store(int64(in(time.Hour)))
	se.extend(in(2 * time.Hour))
	if se.Until() != in(2*time.Hour) {
		t.Error("a renewal does not count")
	}
	se.extend(in(time.Hour))
	if se.Until() != in(2*time.Hour) {
		t.Error("an older renewal counts")
	}
	se.until.Store(int64(in(-time.Nanosecond)))
	se.extend(in(time.Hour))
	if se.Until() != in(-time.Nanosecond) {
		t.Error("a renewal counts whose answer came too late")
	}
	se.until.Store(0)
	se.extend(in(time.Hour))
	if se.Until() != 0 {
		t.Error("a renewal counts of a session that is lost")
	}
}
