package admin

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard decides who may ask.
type guard struct {
	token *tokenFile // nil if none is needed
	hosts []string   // those in --admin, which are accepted like a loopback host
	cross http.CrossOriginProtection
}

// headers tells browsers what they must not do with an answer: store it, guess its type, show it inside another site.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// byFile reports whether a request came by a Unix socket. Then the mode of its file has decided who may ask.
func byFile(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && at.Network() == "unix"
}

// local refuses requests to a host that is not loopback, unless there is a token. This stops DNS rebinding:
//
//  1. A browser loads a page from evil.example, a name with a lifetime of a second.
//  2. The name is made to point to 127.0.0.1.
//  3. The page reads http://evil.example/api/v1/keys. To the browser that is the page's own origin, but it is this server.
func (g *guard) local(next http.Handler) http.Handler {
	if g.token != nil {
		return next // such a page does not have it
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostOf(r.Host); !byFile(r) && !slices.Contains(g.hosts, host) && !loopback(host) {
			fail(w, http.StatusForbidden, "without a token only requests to a loopback host are answered")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allowed passes on requests that show the token, if there is one, and do not come from another site.
func (g *guard) allowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.token != nil && !byFile(r) && !g.token.matches(bearer(r)) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="dreadlock"`)
			fail(w, http.StatusUnauthorized, "the token is missing or wrong")
			return
		}
		if !g.sameOrigin(r) {
			fail(w, http.StatusForbidden, "requests on behalf of another site are not answered")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrigin reports whether a request comes from our own page, or from no page at all. Another site must not even read:
// it could not see the answer, but it could make the loops sort a million keys again and again.
func (g *guard) sameOrigin(r *http.Request) bool {
	asked := *r
	asked.Method = http.MethodPost // Check allows every GET
	return g.cross.Check(&asked) == nil
}

// bearer returns the token that a request shows, empty without one.
func bearer(r *http.Request) string {
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(shown)
}

// hostOf returns the host of host:port, or of a host alone, in lower case and without brackets.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	return strings.ToLower(host)
}

// loopback reports whether a host is this machine whatever a name server says.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
