package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard decides who may ask.
type guard struct {
	token *token // nil if none is needed
	host  string // the name in --admin, which is as good as a loopback name
	cross http.CrossOriginProtection
}

// headers says to browsers what must not be done with any answer: store it, guess its type, show it inside another site.
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

// local refuses requests for a host that is not loopback where there is no token. A browser would send such one for a
// page from elsewhere:
//
//  1. The page is loaded from evil.example, a name with a lifetime of a second.
//  2. The name is made to point to 127.0.0.1.
//  3. The page reads http://evil.example/api/v1/keys, which is its own origin to the browser, and is us.
func (g *guard) local(next http.Handler) http.Handler {
	if g.token != nil {
		return next // that page does not have it
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostOf(r.Host); host != g.host && !loopback(host) {
			fail(w, http.StatusForbidden, "without a token only requests to a loopback host are answered")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allowed lets pass who shows the token and does not come from another site.
func (g *guard) allowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.token != nil && !g.token.matches(bearer(r)) {
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

// sameOrigin says whether a request comes from our own page, or from no page at all. Another site must not even read:
// it could not see the answer, but have the loops sort a million keys over and over.
func (g *guard) sameOrigin(r *http.Request) bool {
	asked := *r
	asked.Method = http.MethodPost // whatever reads is always allowed otherwise
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

// loopback says whether a host can only be this machine, whoever is asked for its address.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
