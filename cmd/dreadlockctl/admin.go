package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// adminTimeout bounds a request; the longest page takes milliseconds.
	adminTimeout = 10 * time.Second
	// maxAnswer bounds an answer, in bytes: a page of the longest keys has about 10 MB.
	maxAnswer = 64 << 20
)

// admin is a client of the admin interface. Safe from any goroutine.
type admin struct {
	base   *url.URL
	token  string // empty for none
	client *http.Client
}

// newAdmin returns a client for the address in the options. It does not connect.
func newAdmin(g *globals) (*admin, error) {
	text := g.Admin
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	base, err := url.Parse(text)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, badOption("--admin %s: want a URL like http://localhost:6002", g.Admin)
	}
	a := &admin{base: base, client: &http.Client{Timeout: adminTimeout}}
	if g.AdminTokenFile != "" {
		text, err := os.ReadFile(g.AdminTokenFile)
		if err != nil {
			return nil, badOption("--admin-token-file: %w", err)
		}
		a.token = strings.TrimSpace(string(text))
		if a.token == "" || strings.ContainsAny(a.token, "\r\n") {
			return nil, badOption("--admin-token-file %s: want a file with one line, the token", g.AdminTokenFile)
		}
	}
	return a, nil
}

// get requests a resource and decodes it. The path is given in parts, without /api/v1.
func (a *admin) get(ctx context.Context, into any, query url.Values, path ...string) error {
	body, err := a.do(ctx, http.MethodGet, query, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return failed(exitFailed, "%s is not the admin interface of a dreadlock daemon: is --admin right? (%w)", a.base, err)
	}
	return nil
}

// post sends a request without a body.
func (a *admin) post(ctx context.Context, path ...string) error {
	_, err := a.do(ctx, http.MethodPost, nil, path)
	return err
}

func (a *admin) do(ctx context.Context, method string, query url.Values, path []string) ([]byte, error) {
	target := a.base.JoinPath("api", "v1").JoinPath(path...)
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, a.unreachable(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, a.unreachable(err)
	}
	if response.StatusCode/100 != 2 {
		return nil, a.refusal(response, body)
	}
	return body, nil
}

// unreachable explains an error of the connection, with advice.
func (a *admin) unreachable(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL, which the messages have
	}
	var unknown *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed(exitUnreachable, "nothing listens at %s: start the daemon with --admin ADDR, and give its address here with "+
			"--admin URL or DREADLOCK_ADMIN (%w)", a.base, err)
	case errors.As(err, &unknown):
		return failed(exitUnreachable, "there is no host %s: give the address of the daemon with --admin URL or DREADLOCK_ADMIN (%w)",
			a.base.Hostname(), err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return failed(exitUnreachable, "%s does not answer: is it the admin interface of a daemon, and reachable from here? (%w)", a.base, err)
	}
	return failed(exitUnreachable, "%s: %w", a.base, err)
}

// errNotFound is wrapped by errors about keys and connections that do not exist.
var errNotFound = errors.New("not found")

// refusal returns an error for an answer whose status is not 2xx.
func (a *admin) refusal(response *http.Response, body []byte) error {
	var says struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &says) != nil || says.Error == "" {
		return failed(exitFailed, "%s is not the admin interface of a dreadlock daemon: is --admin right? (it answers %q)",
			a.base, response.Status)
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", errNotFound, says.Error)
	case http.StatusUnauthorized, http.StatusForbidden:
		if a.token == "" {
			return failed(exitFailed, "%s requires a token: give the daemon's token file with --admin-token-file FILE (%s)", a.base, says.Error)
		}
		return failed(exitFailed, "%s rejects the token: is --admin-token-file that of the daemon? (%s)", a.base, says.Error)
	case http.StatusServiceUnavailable:
		return failed(exitUnreachable, "the daemon at %s is too busy or stopping: try again (%s)", a.base, says.Error)
	}
	return failed(exitFailed, "%s refuses: %s", a.base, says.Error)
}
