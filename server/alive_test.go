package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// alive asks the server, which has that long to answer.
func (d *daemon) alive(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(d.tb.Context(), patience)
	defer cancel()
	return d.server.Alive(ctx)
}

// A server is alive while all of its loops are: not before, not after, and not while one of them hangs.
func TestAlive(t *testing.T) {
	idle, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Alive(t.Context()); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("before it runs: %v, want ErrUnavailable", err)
	}

	d, g := startGated(t, nil)
	if err := d.alive(prototest.Patience); err != nil {
		t.Errorf("idle: %v", err)
	}
	for frozen := range 2 {
		thaw := d.freeze(g, frozen)
		if err := d.alive(20 * time.Millisecond); !errors.Is(err, api.ErrUnavailable) || !strings.Contains(err.Error(), "of 2 loops") {
			t.Errorf("loop %d hangs: %v, want ErrUnavailable that counts the loops", frozen, err)
		}
		answer := make(chan error, 1)
		go func() { answer <- d.alive(prototest.Patience) }()
		thaw()
		if err := <-answer; err != nil {
			t.Errorf("loop %d goes on: %v", frozen, err)
		}
	}
	d.stop()
	if err := d.alive(prototest.Patience); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("after the stop: %v, want ErrUnavailable", err)
	}
}
