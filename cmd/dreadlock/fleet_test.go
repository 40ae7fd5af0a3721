package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dreadlock/bench/fleet/etcdtest"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// startEtcd starts a cluster with three members, and returns it and the value of --fleet.
func startEtcd(t *testing.T) (cluster *etcdtest.Cluster, urls string) {
	t.Helper()
	program, err := etcdtest.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if cluster, err = etcdtest.Start(etcdtest.Options{Program: program, Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), prototest.Patience)
	defer cancel()
	if _, err := cluster.AwaitLeader(ctx, clientv3.Config{Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	return cluster, strings.Join(cluster.Endpoints(), ",")
}

// token returns the fencing token of a key that a client holds.
func token(t *testing.T, c *prototest.Client, key string) string {
	t.Helper()
	c.Send("fence " + key)
	reply, err := c.ReadReply()
	if err != nil || !strings.HasPrefix(reply, "f ") {
		t.Fatalf("fence: %q, %v", reply, err)
	}
	return reply
}

// A key goes from one daemon to another: when it is unlocked, when a daemon stops, and when one is killed, as soon as its lease has expired.
func TestFleet(t *testing.T) {
	cluster, urls := startEtcd(t)
	join := func(args ...string) *daemon {
		d := start(t, append([]string{"--fleet", urls, "--fleet-ttl", "5s", "--admin", "127.0.0.1:0"}, args...)...)
		if _, ok := d.log.await("in touch with the fleet"); !ok {
			t.Fatalf("it is not in touch; log:\n%s", d.log)
		}
		return d
	}
	one, two, three := join(), join(), join()
	stranger := join("--fleet-prefix", "/other")
	a, b, c := one.dial(), two.dial(), three.dial()
	a.Do("lock k 0", "l locked")
	tokens := []string{token(t, a, "k")}
	stranger.dial().Do("lock k 0", "l locked")
	b.Do("lock k 0", "t timeout")
	b.Do("unlock k", "e not owner")
	b.Do("unlock free", "e not locked")
	b.Send("lock k 60000")
	v := view{d: two, url: two.adminAddresses()[0]}
	status := func() (st api.Status) {
		v.get("/api/v1/status", &st)
		return st
	}
	eventually(t, "the client does not wait", func() bool { return status().Waiters == 1 })
	c.Send("lock k 60000")
	third := view{d: three, url: three.adminAddresses()[0]}
	eventually(t, "the other client does not wait", func() bool {
		var st api.Status
		third.get("/api/v1/status", &st)
		return st.Waiters == 1 && st.Fleet.AllPlaces >= 3
	})
	if err := cluster.Members[0].Pause(); err != nil { // etcd works on
		t.Fatal(err)
	}
	a.Do("unlock k", "u unlocked")
	b.Expect("l locked")
	tokens = append(tokens, token(t, b, "k"))
	st := status()
	if f := st.Fleet; f == nil || !f.InTouch || len(f.Daemons) != 3 || f.Places == 0 || f.Space == "" || f.Lost[api.LostTime] != 0 {
		t.Errorf("the status of the fleet is %+v", f)
	}
	two.stop()
	c.Expect("l locked")
	tokens = append(tokens, token(t, c, "k"))
	if _, ok := two.log.await("the daemon leaves the fleet"); !ok {
		t.Error("the log does not say that the daemon leaves the fleet")
	}
	a.Send("lock k 60000")
	three.signal(syscall.SIGKILL)
	a.Expect("l locked")
	tokens = append(tokens, token(t, a, "k"))
	for i := 1; i < len(tokens); i++ {
		if len(tokens[i]) < len(tokens[i-1]) || len(tokens[i]) == len(tokens[i-1]) && tokens[i] <= tokens[i-1] {
			t.Errorf("the tokens are %v", tokens)
		}
	}
}

// All of etcd is gone. A daemon drops who holds a key, and grants nothing, until it is back. One that starts meanwhile waits.
func TestFleetWithoutEtcd(t *testing.T) {
	cluster, urls := startEtcd(t)
	d := start(t, "--fleet", urls, "--fleet-ttl", "5s")
	if _, ok := d.log.await("in touch with the fleet"); !ok {
		t.Fatalf("it is not in touch; log:\n%s", d.log)
	}
	holder, idle := d.dial(), d.dial()
	holder.Do("lock k 0", "l locked")
	idle.Do("lock other 0", "l locked")
	idle.Do("unlock other", "u unlocked")
	cluster.Stop()
	late := start(t, "--fleet", urls)
	if _, ok := late.log.awaitLine(func(l logLine) bool { return strings.HasPrefix(l.text("message"), "cannot reach etcd at http://") }); !ok {
		t.Fatalf("it does not say that it waits; log:\n%s", late.log)
	}
	holder.ExpectEnd()
	if _, ok := d.log.await("lost touch with the fleet: the clients that held a key or waited for one were dropped"); !ok {
		t.Errorf("it does not say so; log:\n%s", d.log)
	}
	waiter, later := d.dial(), late.dial()
	waiter.Send("lock k 60000")
	for _, m := range cluster.Members {
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	waiter.Expect("l locked")
	later.Send("lock k 60000")
	waiter.Do("unlock k", "u unlocked")
	later.Expect("l locked")
	idle.Do("lock other 1000", "l locked")
	began := time.Now()
	late.stop()
	d.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("they have stopped after %s", took)
	}
}

// The options of the fleet come from the command line, else from the environment, else they have their defaults.
func TestFleetOptionSources(t *testing.T) {
	_, urls := startEtcd(t)
	first, _, _ := strings.Cut(urls, ",")
	env := launch{env: []string{
		"DREADLOCK_FLEET=" + urls, "DREADLOCK_FLEET_PREFIX=/env", "DREADLOCK_FLEET_TTL=7s", "DREADLOCK_FLEET_ADVERTISE=env:1",
	}}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		l                         launch
		args                      []string
		etcd, prefix, ttl, advert string
	}{
		{launch{}, []string{"--fleet", urls}, urls, "/dreadlock", "10s", host + ":"},
		{env, nil, urls, "/env", "7s", "env:1"},
		{
			env, []string{"--fleet", first, "--fleet-prefix", "/flag/", "--fleet-ttl", "6s", "--fleet-advertise", "flag:2"},
			first, "/flag", "6s", "flag:2",
		},
	} {
		d := startWith(t, test.l, append(test.args, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")...)
		line, ok := d.log.await("in touch with the fleet")
		if !ok {
			t.Fatalf("it is not in touch; log:\n%s", d.log)
		}
		var all []string
		for _, url := range line["etcd"].([]any) {
			all = append(all, url.(string))
		}
		if got := strings.Join(all, ","); got != test.etcd || line.text("prefix") != test.prefix || line.text("ttl") != test.ttl {
			t.Errorf("%v: etcd %s, prefix %s, ttl %s; want %+v", test.args, got, line["prefix"], line["ttl"], test)
		}
		v := view{d: d, url: d.adminAddresses()[0]}
		eventually(t, "the daemon is not known by "+test.advert, func() bool {
			var st api.Status
			v.get("/api/v1/status", &st)
			return len(st.Fleet.Daemons) == 1 && strings.HasPrefix(st.Fleet.Daemons[0].Address, test.advert)
		})
		d.stop()
	}
}

// The daemon links the client of etcd, and never the server: that would double its size.
func TestLinksNoEtcdServer(t *testing.T) {
	output, err := exec.Command("go", "list", "-deps", "dreadlock/cmd/dreadlock").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(output), "go.etcd.io/etcd/client/v3\n") {
		t.Error("the list of packages lacks the client of etcd")
	}
	for name := range strings.Lines(string(output)) {
		if strings.HasPrefix(name, "go.etcd.io/etcd/server") || strings.HasPrefix(name, "go.etcd.io/raft") || strings.HasPrefix(name, "dreadlock/bench") {
			t.Errorf("it links %s", name)
		}
	}
}

// Options of a fleet that cannot be used are told by the names of their flags.
func TestFleetOptions(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--fleet", "ftp://a:1"}, "--fleet: \"ftp://a:1\" is no endpoint of etcd"},
		{[]string{"--fleet", "http://a:1/path"}, "--fleet"},
		{[]string{"--fleet", "a:1,a:1"}, "--fleet: http://a:1 is there twice"},
		{[]string{"--fleet", ","}, "--fleet"},
		{[]string{"--fleet", "a:1", "--fleet-prefix", "/"}, "--fleet-prefix"},
		{[]string{"--fleet", "a:1", "--fleet-ttl", "4s"}, "--fleet-ttl: 4s: want whole seconds, 5s to 10m0s"},
		{[]string{"--fleet", "a:1", "--fleet-ttl", "5500ms"}, "--fleet-ttl"},
		{[]string{"--fleet", "a:1", "--fleet-ca", missing}, "--fleet: http://a:1 is not encrypted"},
		{[]string{"--fleet", "https://a:1", "--fleet-ca", missing}, "--fleet-ca"},
		{[]string{"--fleet", "https://a:1", "--fleet-ca", empty}, "--fleet-ca: " + empty + " has no certificate"},
		{[]string{"--fleet", "https://a:1", "--fleet-cert", missing}, "--fleet-cert and --fleet-key: give both or neither"},
		{[]string{"--fleet", "https://a:1", "--fleet-cert", missing, "--fleet-key", missing}, "--fleet-cert"},
		{[]string{"--fleet", "a:1", "--fleet-user", "u"}, "--fleet-user and --fleet-password-file"},
		{[]string{"--fleet", "a:1", "--fleet-user", "u", "--fleet-password-file", missing}, "--fleet-password-file"},
		{[]string{"--fleet", "a:1", "--fleet-user", "u", "--fleet-password-file", empty}, "--fleet-password-file: " + empty + " has no password"},
		{[]string{"--fleet", "a:1", "--fleet-advertise", "host"}, "--fleet-advertise host: want HOST:PORT"},
		{[]string{"--fleet-user", "u"}, "--fleet-user has no effect without --fleet"},
	} {
		got := run(t, launch{}, append(test.args, "--listen", "127.0.0.1:0")...)
		if got.status != exitUsage || !oneLine(got.stderr, test.want) {
			t.Errorf("%v: status %d, %s", test.args, got.status, got.stderr)
		}
	}
}
