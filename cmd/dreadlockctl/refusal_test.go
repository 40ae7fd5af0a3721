package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"dreadlock/proto/client"
)

// Whatever the network says, the message says what to do, for both ways to a daemon.
func TestNetworkErrors(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	g := &globals{Server: "locks:6001"}
	a, err := newAdmin(t.Context(), &globals{Admin: "http://locks:6002"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		says string
	}{
		{dial(&net.DNSError{Err: "no such host", Name: "locks", IsNotFound: true}), "there is no "},
		{dial(&net.DNSError{Err: "i/o timeout", Name: "locks", IsTimeout: true}), "the name server does not answer"},
		{dial(&net.DNSError{Err: "server misbehaving", Name: "locks", IsTemporary: true}), "the name server does not answer"},
		{dial(os.NewSyscallError("connect", syscall.ENETUNREACH)), "there is no way from this machine to "},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), "there is no way from this machine to "},
		{dial(os.ErrDeadlineExceeded), "does not answer: "},
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), "nothing listens at "},
	} {
		lock := (&lockCommand{Key: "k"}).refusal(g, fmt.Errorf("client: %w: %w", client.ErrUnreachable, c.err))
		for _, got := range []error{lock, a.unreachable(c.err)} {
			var e *exit
			if !errors.As(got, &e) || e.status != exitUnreachable || !strings.Contains(got.Error(), c.says) {
				t.Errorf("%v: %v, want %q", c.err, got, c.says)
			}
		}
	}
}

// The port of the clients is not that of the admin interface, and what else listens there is none either.
func TestNoAdmin(t *testing.T) {
	d := startDaemon(t)
	for _, address := range []string{
		d.address, // which takes the request for a command, and ends the connection
		serve(t, func(conn net.Conn) { fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.2\r\n") }),
		serve(t, func(net.Conn) {}),
	} {
		for _, command := range []string{"status", "health", "watch"} {
			got := runs(t, command, "--admin", "http://"+address)
			if got.status != exitUnreachable || !oneLine(got.stderr, address+" does not answer as the admin interface", "not that of its clients") {
				t.Errorf("%s: %+v", command, got)
			}
		}
	}
}
