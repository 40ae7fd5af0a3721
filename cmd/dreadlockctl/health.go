package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// healthCommand asks whether the daemon works.
type healthCommand struct {
	Ready bool `help:"Check whether it serves clients that come now: it does not while it starts, drains or stops."`
}

// Help has examples.
func (*healthCommand) Help() string {
	return `Examples:

  dreadlockctl health            all event loops of the daemon answer
  dreadlockctl health --ready    it also takes new clients
  until dreadlockctl health --ready 2>/dev/null; do sleep 1; done

No token is needed. Exit status: 0 if it does, 1 if not, 69 if it cannot be reached.`
}

// Run asks, and prints the answer.
func (c *healthCommand) Run(ctx context.Context, s *streams, g *globals) error {
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	path := "healthz"
	if c.Ready {
		path = "readyz"
	}
	text, err := a.probe(ctx, path)
	if err == nil {
		_, err = fmt.Fprintln(s.stdout, text)
	}
	return err
}

// maxProbe bounds the answer of a health check, in bytes.
const maxProbe = 1 << 10

// probe asks a health check, and returns its answer if that is good.
func (a *admin) probe(ctx context.Context, path string) (text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base.JoinPath(path).String(), http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return "", a.unreachable(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxProbe))
	if err != nil {
		return "", a.unreachable(err)
	}
	text = strings.TrimSpace(string(body))
	switch {
	case response.StatusCode == http.StatusOK && text == "ok":
		return text, nil
	case response.StatusCode == http.StatusServiceUnavailable && text != "":
		return "", failed(exitFailed, "the daemon at %s: %s", a.where, text)
	}
	return "", a.refusal(response, body)
}
