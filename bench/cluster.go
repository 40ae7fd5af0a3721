package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dreadlock/bench/fleet/etcdtest"
)

// fleetOptions returns the options that make a daemon the only one of a fleet of its own. The fleets of all daemons that are started here
// meet in one member of etcd, which does not wait for the disk: what is measured is the daemon, on keys that it has got once.
func (ps *Peers) fleetOptions(ctx context.Context, port string) ([]string, error) {
	if err := ps.startMember(ctx); err != nil {
		return nil, err
	}
	endpoints := strings.Join(ps.cluster.Endpoints(), ",")
	return []string{"--fleet", endpoints, "--fleet-prefix", "/bench/" + port}, nil // no other daemon has the port
}

// startMember starts the member of etcd, unless it runs.
func (ps *Peers) startMember(ctx context.Context) error {
	if ps.cluster != nil {
		return nil
	}
	dir, err := ps.directory()
	if err != nil {
		return err
	}
	if ps.Members == "" {
		if ps.Members, err = etcdtest.Find(dir); err != nil {
			return fmt.Errorf("%w: the program fleet, which has etcd, is not next to this program and cannot be built here: "+
				"call \"make bench\", or \"go build -o .bin/ ./bench/fleet\" in the sources: %w", ErrNotInstalled, err)
		}
	}
	cluster, err := etcdtest.Start(etcdtest.Options{Program: ps.Members, Dir: dir, Members: 1})
	if err != nil {
		return fmt.Errorf("start a member of etcd: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if _, err := cluster.AwaitLeader(ctx, clientv3.Config{Logger: zap.NewNop()}); err != nil {
		cluster.Stop()
		return err
	}
	ps.cluster = cluster
	return nil
}

// inTouch reports whether the daemon says, at its admin interface, that it is ready: it is when it is in touch with its fleet.
func (s *Server) inTouch(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := adminClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close() // it was only read
	return response.StatusCode == http.StatusOK
}

// portOf returns the port of an address.
func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
