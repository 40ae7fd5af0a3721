package main

import (
	"context"
	"fmt"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// memberCommand runs a member of etcd. Its options have the names and the meanings that they have there.
type memberCommand struct {
	Name           string `required:"" help:"Name of the member."`
	DataDir        string `required:"" help:"Directory of its data."`
	ClientURL      string `required:"" help:"URL for clients."`
	PeerURL        string `required:"" help:"URL for the other members."`
	InitialCluster string `required:"" placeholder:"NAME=URL,..." help:"All members, by name and peer URL."`
	LogFile        string `required:"" help:"File for what it has to say."`

	SnapshotCount           uint64 `default:"10000" help:"Transactions from one snapshot to the next (${default})."`
	AutoCompactionMode      string `default:"periodic" enum:"periodic,revision" help:"How its history is kept short (${default})."`
	AutoCompactionRetention string `default:"5m" help:"How much of it is kept; 0 keeps all (${default})."`
	QuotaBackendBytes       int64  `default:"0" help:"Size of the database beyond which nothing is written. 0: 2 GiB."`
	HeartbeatInterval       uint   `default:"100" help:"Time from one sign of life of the leader to the next, in ms (${default})."`
	ElectionTimeout         uint   `default:"1000" help:"Time without one after which there is an election, in ms (${default})."`
	UnsafeNoFsync           bool   `help:"Do not wait for the disk. Nothing is lost as long as the machine runs."`

	CertFile      string `help:"Certificate for TLS with clients."`
	KeyFile       string `help:"Its private key."`
	TrustedCAFile string `name:"trusted-ca-file" help:"Authorities: clients need a certificate of theirs."`
}

// Run serves until ctx is done.
func (c *memberCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	member, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start member %s: %w", c.Name, err)
	}
	defer member.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-member.Err():
		return fmt.Errorf("member %s: %w", c.Name, err)
	case <-member.Server.StopNotify():
		return fmt.Errorf("member %s has stopped by itself: see %s", c.Name, c.LogFile)
	}
}

func (c *memberCommand) config() (*embed.Config, error) {
	clients, err := url.Parse(c.ClientURL)
	if err != nil {
		return nil, err
	}
	peers, err := url.Parse(c.PeerURL)
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = c.Name, c.DataDir, c.InitialCluster
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peers}, []url.URL{*peers}
	cfg.LogOutputs, cfg.LogLevel = []string{c.LogFile}, "warn"
	cfg.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration // without it, every request is logged
	cfg.SnapshotCount = c.SnapshotCount
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = c.AutoCompactionMode, c.AutoCompactionRetention
	cfg.QuotaBackendBytes = c.QuotaBackendBytes
	cfg.TickMs, cfg.ElectionMs = c.HeartbeatInterval, c.ElectionTimeout
	cfg.UnsafeNoFsync = c.UnsafeNoFsync
	cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = c.CertFile, c.KeyFile
	cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = c.TrustedCAFile, c.TrustedCAFile != ""
	return cfg, nil
}
