package admin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"dreadlock/server/noise"
)

// Who may ask for what, with and without a token.
func TestGuard(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	const (
		status = "/api/v1/status"
		kick   = "/api/v1/connections/1/kick"
	)
	bearer := func(token string) map[string]string { return map[string]string{"Authorization": "Bearer " + token} }
	with := func(header map[string]string, more ...string) map[string]string {
		both := map[string]string{more[0]: more[1]}
		for name, value := range header {
			both[name] = value
		}
		return both
	}
	none := map[string]string{}
	for _, c := range []struct {
		name           string
		token          bool
		method, target string
		header         map[string]string
		status         int
	}{
		{"loopback", false, "GET", status, none, 200},
		{"loopback, kick", false, "POST", kick, none, 200},
		{"loopback by number", false, "GET", status, map[string]string{"Host": "127.0.0.1:80"}, 200},
		{"loopback by another number", false, "GET", status, map[string]string{"Host": "127.8.8.8"}, 200},
		{"loopback by IPv6", false, "GET", status, map[string]string{"Host": "[::1]:80"}, 200},
		{"loopback by IPv6 without port", false, "GET", status, map[string]string{"Host": "[::1]"}, 200},
		{"loopback in capitals", false, "GET", status, map[string]string{"Host": "LocalHost"}, 200},
		{"the name in --admin", false, "GET", status, map[string]string{"Host": "lock.internal:6002"}, 200},
		{"another host", false, "GET", status, map[string]string{"Host": "evil.example"}, 403},
		{"another host, page", false, "GET", "/", map[string]string{"Host": "evil.example"}, 403},
		{"another host, health", false, "GET", "/healthz", map[string]string{"Host": "evil.example:6002"}, 403},
		{"another host, metrics", false, "GET", "/metrics", map[string]string{"Host": "localhost.evil.example"}, 403},
		{"another address", false, "POST", kick, map[string]string{"Host": "192.0.2.1"}, 403},
		{"a token that nobody wants", false, "GET", status, bearer(secret), 200},

		{"token missing", true, "GET", status, none, 401},
		{"token missing, kick", true, "POST", kick, none, 401},
		{"token missing, metrics", true, "GET", "/metrics", none, 401},
		{"token missing, pprof", true, "GET", "/debug/pprof/", none, 401},
		{"token missing, nothing there", true, "GET", "/secret", none, 401},
		{"token missing, dots", true, "GET", "/healthz/../api/v1/status", none, 307}, // to where a token is wanted
		{"token missing, page", true, "GET", "/", none, 200},
		{"token missing, health", true, "GET", "/healthz", none, 200},
		{"token missing, ready", true, "GET", "/readyz", none, 200},
		{"token", true, "GET", status, bearer(secret), 200},
		{"token, kick", true, "POST", kick, bearer(secret), 200},
		{"token, metrics", true, "GET", "/metrics", bearer(secret), 200},
		{"token, pprof", true, "GET", "/debug/pprof/", bearer(secret), 200},
		{"token, another host", true, "GET", status, with(bearer(secret), "Host", "lock.example"), 200},
		{"token, small scheme", true, "GET", status, map[string]string{"Authorization": "bearer " + secret}, 200},
		{"wrong token", true, "GET", status, bearer(strings.ToUpper(secret)), 401},
		{"wrong token, kick", true, "POST", kick, bearer("x"), 401},
		{"half a token", true, "GET", status, bearer(secret[:16]), 401},
		{"token and more", true, "GET", status, bearer(secret + "0"), 401},
		{"empty token", true, "GET", status, bearer(""), 401},
		{"another scheme", true, "GET", status, map[string]string{"Authorization": "Basic " + secret}, 401},
		{"no scheme", true, "GET", status, map[string]string{"Authorization": secret}, 401},
		{"token in the address", true, "GET", status + "?token=" + secret, none, 401},

		{"our page", false, "POST", kick, map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:6002"}, 200},
		{"typed", false, "GET", status, map[string]string{"Sec-Fetch-Site": "none"}, 200},
		{"another site", false, "POST", kick, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another port of the machine", false, "POST", kick, map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"another site, old browser", false, "POST", kick, map[string]string{"Origin": "http://evil.example"}, 403},
		{"our page, old browser", false, "POST", kick, map[string]string{"Origin": "http://localhost:6002"}, 200},
		{"no origin at all", false, "POST", kick, map[string]string{"Origin": "null"}, 403},
		{"another site reads", false, "GET", status, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another site profiles", false, "GET", "/debug/pprof/", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another site links to the page", false, "GET", "/", map[string]string{"Sec-Fetch-Site": "cross-site"}, 200},
		{"another site with the token", true, "POST", kick, with(bearer(secret), "Sec-Fetch-Site", "cross-site"), 403},
		{"kick by GET", false, "GET", kick, none, 405},
		{"kick by GET, token", true, "GET", kick, bearer(secret), 405},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			cfg := &Config{Source: f, PProf: true, Log: zerolog.Nop()}
			var want *tokenFile
			if c.token {
				want = &tokenFile{}
				want.current.Store(newToken(secret))
			}
			header := http.Header{}
			for name, value := range c.header {
				header.Set(name, value)
			}
			w := ask(newHandler(cfg, want, newLimit(), noise.New(zerolog.Nop()), []string{"lock.internal"}), c.method, c.target, header)
			if w.Code != c.status {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.status)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (c.status == http.StatusUnauthorized) {
				t.Errorf("challenge %q with %d", challenge, w.Code)
			}
			if kicked := len(f.kicked()) > 0; kicked != (c.target == kick && c.status == http.StatusOK) {
				t.Errorf("kicked: %v", kicked)
			}
			for name, value := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			} {
				if w.Header().Get(name) != value {
					t.Errorf("%s: %q", name, w.Header().Get(name))
				}
			}
		})
	}
}
