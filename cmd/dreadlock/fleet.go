package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/cmd/internal/cmdline"
	"dreadlock/server/fleet"
	"dreadlock/server/fleet/etcd"
)

// fleetOptions say how the daemon joins a fleet.
type fleetOptions struct {
	Fleet             []string      `placeholder:"URL,URL" help:"Be one of several daemons that share their locks: they meet in etcd, at these endpoints: http://HOST:PORT or https://HOST:PORT. Name all members. Without it the daemon is alone." env:"DREADLOCK_FLEET"`
	FleetPrefix       string        `default:"${fleet_prefix}" placeholder:"TEXT" help:"What the keys of the fleet in etcd begin with; the same for all its daemons (${default})." env:"DREADLOCK_FLEET_PREFIX"`
	FleetTTL          time.Duration `name:"fleet-ttl" default:"${fleet_ttl}" placeholder:"DURATION" help:"Time after which etcd gives away what this daemon holds if it does not hear of it; 2s before that the daemon drops those clients (${default})." env:"DREADLOCK_FLEET_TTL"`
	FleetCA           string        `name:"fleet-ca" placeholder:"FILE" help:"Certificates of the authorities of etcd's members, PEM. By default those of the system." env:"DREADLOCK_FLEET_CA"`
	FleetCert         string        `placeholder:"FILE" help:"Certificate of this daemon as a client of etcd, PEM." env:"DREADLOCK_FLEET_CERT"`
	FleetKey          string        `placeholder:"FILE" help:"Private key of that certificate, PEM." env:"DREADLOCK_FLEET_KEY"`
	FleetUser         string        `placeholder:"NAME" help:"User of etcd." env:"DREADLOCK_FLEET_USER"`
	FleetPasswordFile string        `placeholder:"FILE" help:"File with the password of that user." env:"DREADLOCK_FLEET_PASSWORD_FILE"`
	FleetAdvertise    string        `placeholder:"HOST:PORT" help:"Address by which the others know this daemon. By default the name of the machine and the port." env:"DREADLOCK_FLEET_ADVERTISE"`
}

// store returns where the daemon meets its fleet, nil if it is alone. The port is that of the daemon, once it serves.
func (o *fleetOptions) store(port func() int, log zerolog.Logger) (fleet.Store, error) {
	if len(o.Fleet) == 0 {
		for _, given := range []struct{ flag, value string }{
			{"--fleet-ca", o.FleetCA}, {"--fleet-cert", o.FleetCert}, {"--fleet-key", o.FleetKey}, {"--fleet-user", o.FleetUser},
			{"--fleet-password-file", o.FleetPasswordFile}, {"--fleet-advertise", o.FleetAdvertise},
		} {
			if given.value != "" {
				return nil, fmt.Errorf("%w: %s has no effect without --fleet", etcd.ErrOption, given.flag)
			}
		}
		return nil, nil
	}
	address, err := o.advertise(port)
	if err != nil {
		return nil, err
	}
	cfg := etcd.Config{
		Prefix: o.FleetPrefix, TTL: o.FleetTTL, CA: o.FleetCA, Cert: o.FleetCert, Key: o.FleetKey,
		User: o.FleetUser, PasswordFile: o.FleetPasswordFile, Address: address, Version: cmdline.ShortVersion(), Log: log,
	}
	for _, endpoint := range o.Fleet {
		cfg.Endpoints = append(cfg.Endpoints, strings.TrimSpace(endpoint))
	}
	store, err := etcd.New(cfg)
	if err != nil {
		return nil, err
	}
	return store, nil
}

// advertise returns what tells the address of this daemon.
func (o *fleetOptions) advertise(port func() int) (func() string, error) {
	if given := o.FleetAdvertise; given != "" {
		if host, _, err := net.SplitHostPort(given); err != nil || host == "" {
			return nil, fmt.Errorf("%w: --fleet-advertise %s: want HOST:PORT", etcd.ErrOption, given)
		}
		return func() string { return given }, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("the machine has no name: %w: give --fleet-advertise", err)
	}
	return func() string {
		if p := port(); p != 0 {
			return net.JoinHostPort(host, strconv.Itoa(p))
		}
		return host // it serves on Unix sockets only
	}, nil
}
