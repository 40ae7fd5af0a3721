package etcdtest

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/proto/prototest"
)

// TestCluster kills the leader of a cluster, starts it again, and finds what was written before.
func TestCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*prototest.Patience) // three processes begin and elect, again and again
	defer cancel()
	program, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := Start(Options{Program: program, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Stop()
	leader, err := cluster.AwaitLeader(ctx, clientv3.Config{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	leader.Kill()
	if leader.Runs() {
		t.Fatal("a member runs that was killed")
	}
	next, err := cluster.AwaitLeader(ctx, clientv3.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if next == leader {
		t.Fatal("the member that was killed is the leader")
	}
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	if err := next.Pause(); err != nil {
		t.Fatal(err)
	}
	alone, err := clientv3.New(clientv3.Config{Endpoints: []string{leader.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	for { // until it has joined the others
		if got, err := alone.Get(ctx, "a"); err == nil {
			if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "b" {
				t.Fatalf("what was written is gone: %v", got.Kvs)
			}
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if err := next.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := next.Stop(); err != nil {
		t.Fatal(err)
	}
}
