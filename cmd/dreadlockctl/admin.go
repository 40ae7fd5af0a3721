package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dreadlock/proto/client"
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
	where  string // the address for people: the base, or a Unix socket
	token  string // empty for none
	tls    tlsOptions
	client *http.Client
}

// newAdmin returns a client for the address in the options, or for the socket of the daemon on this machine. It does not
// connect.
func newAdmin(ctx context.Context, g *globals) (*admin, error) {
	token, err := g.readToken()
	if err != nil {
		return nil, err
	}
	where := g.Admin
	if where == "" {
		path, err := findAdmin(ctx, g)
		if err != nil {
			return nil, err
		}
		where = socketURL(path)
	}
	if !strings.Contains(where, "://") {
		where = "http://" + where
	}
	a := &admin{where: where, token: token, tls: g.TLS, client: &http.Client{Timeout: adminTimeout}}
	if a.base, err = url.Parse(where); err != nil {
		return nil, badAdmin(g)
	}
	switch {
	case a.base.Scheme == "unix":
		socket, err := client.ParseAddress(where)
		if err != nil {
			return nil, badOption("--admin: %s", describe(err))
		}
		a.base = &url.URL{Scheme: "http", Host: "localhost"}
		a.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, socket.Network, socket.Address)
		}}
	case a.base.Host == "":
		return nil, badAdmin(g)
	case !canBePort(a.base.Port()):
		return nil, badOption("--admin %s: the port must be a number from 1 to 65535", g.Admin)
	case a.base.Scheme == "https":
		cfg, err := g.TLS.config()
		if err != nil {
			return nil, err
		}
		a.client.Transport = &http.Transport{TLSClientConfig: cfg, Proxy: http.ProxyFromEnvironment}
	case a.base.Scheme != "http":
		return nil, badAdmin(g)
	}
	return a, nil
}

// canBePort reports whether somebody can listen on the port of a URL, which is empty or digits.
func canBePort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// readToken returns the token in the file of the options, empty if there is no file.
func (g *globals) readToken() (string, error) {
	if g.AdminTokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(g.AdminTokenFile)
	if err != nil {
		return "", badOption("--admin-token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", badOption("--admin-token-file %s: want a file with one line, the token", g.AdminTokenFile)
	}
	return token, nil
}

func badAdmin(g *globals) error {
	return badOption("--admin %s: want http://HOST:PORT, https://HOST:PORT or unix:///PATH", g.Admin)
}

// get requests a resource and decodes it. The path is given in parts, without /api/v1.
func (a *admin) get(ctx context.Context, into any, query url.Values, path ...string) error {
	return a.do(ctx, http.MethodGet, into, query, path)
}

// strange explains an answer that is not that of a daemon.
func (a *admin) strange(err error) error {
	return failed(exitFailed, "%s is not the admin interface of a dreadlock daemon: is --admin right? (%w)", a.where, err)
}

// post sends a request without a body, and decodes the answer unless into is nil.
func (a *admin) post(ctx context.Context, into any, query url.Values, path ...string) error {
	return a.do(ctx, http.MethodPost, into, query, path)
}

func (a *admin) do(ctx context.Context, method string, into any, query url.Values, path []string) error {
	response, err := a.send(ctx, a.client, method, query, path)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return a.unreachable(err)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return a.strange(err)
	}
	return nil
}

// send sends a request and returns the answer if its status is good, with the body to read and close.
func (a *admin) send(ctx context.Context, by *http.Client, method string, query url.Values, path []string) (*http.Response, error) {
	return a.sendWith(ctx, by, http.Header{"Accept": {"application/json"}}, method, query, path)
}

// sendWith is send with a header.
func (a *admin) sendWith(
	ctx context.Context, by *http.Client, header http.Header, method string, query url.Values, path []string,
) (*http.Response, error) {
	target := a.base.JoinPath("api", "v1").JoinPath(path...)
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header = header
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := by.Do(request)
	if method == http.MethodGet && isCutOff(err) {
		select { // the process may have handed over to another one
		case <-time.After(cutOffPause):
			response, err = by.Do(request)
		case <-ctx.Done():
		}
	}
	if err != nil {
		return nil, a.unreachable(err)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, a.unreachable(err)
	}
	return nil, a.refusal(response, body)
}

// cutOffPause is the pause before a question is asked again whose connection has ended without an answer.
const cutOffPause = 100 * time.Millisecond

// isCutOff reports whether a connection was there and has ended without an answer.
func isCutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// unreachable explains an error of the connection, with advice.
func (a *admin) unreachable(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL, which the messages have
	}
	var unknown *net.DNSError
	var step *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return failed(exitUnreachable, "nothing listens at %s: start the daemon with that address as --admin, or give another one here "+
			"with --admin URL or DREADLOCK_ADMIN (%w)", a.where, err)
	case errors.Is(err, fs.ErrPermission):
		return failed(exitUnreachable, "you may not use the socket at %s: run dreadlockctl as root or as the user of the daemon (%w)",
			a.where, err)
	case isSilentDNS(err):
		return failed(exitUnreachable, "the name server does not answer for %s: give the address of the daemon as a number with --admin URL or "+
			"DREADLOCK_ADMIN (%w)", a.base.Hostname(), err)
	case errors.As(err, &unknown):
		return failed(exitUnreachable, "there is no host %s: give the address of the daemon with --admin URL or DREADLOCK_ADMIN (%w)",
			a.base.Hostname(), err)
	case isNoWay(err):
		return failed(exitUnreachable, "there is no way from this machine to %s: is the address right, and the network up? (%w)", a.where, err)
	case isTimeout(err):
		return failed(exitUnreachable, "%s does not answer: is it the admin interface of a daemon, and reachable from here? (%w)", a.where, err)
	case errors.As(err, &step) && step.Op == "dial":
		return failed(exitUnreachable, "%s: %w", a.where, err)
	case a.base.Scheme != "https":
		return failed(exitUnreachable, "%s does not answer as the admin interface of a dreadlock daemon does: is --admin right? It is the "+
			"address that the daemon has as --admin, not that of its clients (%w)", a.where, err)
	}
	return handshakeRefusal(a.where, "--admin", &a.tls, err)
}

// errNotFound is wrapped by errors about keys and connections that do not exist.
var errNotFound = errors.New("not found")

// conflict is an error that says in the words of the daemon why it refuses, in the state that it is in, what it does in others.
type conflict struct{ says string }

func (c *conflict) Error() string { return c.says }

// refusal returns an error for an answer whose status is not 2xx.
func (a *admin) refusal(response *http.Response, body []byte) error {
	var says struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &says) != nil || says.Error == "" {
		return failed(exitFailed, "%s is not the admin interface of a dreadlock daemon: is --admin right? (it answers %q)",
			a.where, response.Status)
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", errNotFound, says.Error)
	case http.StatusConflict:
		return &conflict{says.Error}
	case http.StatusUnauthorized, http.StatusForbidden:
		if a.token == "" {
			return failed(exitFailed, "%s requires a token: give the daemon's token file with --admin-token-file FILE (%s)", a.where, says.Error)
		}
		return failed(exitFailed, "%s rejects the token: is --admin-token-file that of the daemon? (%s)", a.where, says.Error)
	case http.StatusServiceUnavailable:
		return failed(exitUnreachable, "the daemon at %s is too busy or stopping: try again (%s)", a.where, says.Error)
	}
	return failed(exitFailed, "%s refuses: %s", a.where, says.Error)
}
