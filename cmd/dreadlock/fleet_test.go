package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

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
