package etcd

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"dreadlock/server/fleet"
)

// slowLessor renews leases, and takes its time to say so.
type slowLessor struct {
	etcdserverpb.UnimplementedLeaseServer
	ttl   int64
	delay time.Duration
}

func (l *slowLessor) LeaseKeepAlive(stream etcdserverpb.Lease_LeaseKeepAliveServer) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	<-time.After(l.delay)
	return stream.Send(&etcdserverpb.LeaseKeepAliveResponse{Header: &etcdserverpb.ResponseHeader{}, ID: request.ID, TTL: l.ttl})
}

// A lease is renewed from the moment of sending, whenever the answer comes, and for the TTL of the answer, less the lock delay.
func TestRenewedFromSending(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lessor := &slowLessor{ttl: 40, delay: callTime / 2}
	srv := grpc.NewServer()
	etcdserverpb.RegisterLeaseServer(srv, lessor)
	go srv.Serve(ln)
	defer srv.Stop()
	s, err := New(Config{
		Endpoints: []string{ln.Addr().String()}, Prefix: DefaultPrefix, TTL: DefaultTTL, Address: func() string { return "" }, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.endpoints.close()
	se := &session{store: s, lease: 1, rest: 5 * time.Second}
	se.until.Store(int64(fleet.Now() + time.Minute/4))
	sent := fleet.Now()
	if err := se.renewOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	const lasts = 33 * time.Second // 40 s, less the lock delay and the margin
	if until, latest := se.Until(), fleet.Now()-lessor.delay+lasts; until > latest {
		t.Errorf("the lease is renewed for %s too long", until-latest)
	} else if earliest := sent + lasts; until < earliest {
		t.Errorf("the lease is renewed for %s too short", earliest-until)
	}
	lessor.ttl = 0
	if err := se.renewOnce(t.Context()); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a lease that is gone: %v", err)
	}
}
