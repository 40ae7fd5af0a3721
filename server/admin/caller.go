package admin

import (
	"net"
	"net/http"
)

// callerOf says who has sent a request, for the log: the address of the caller, or the socket by which the request came.
func callerOf(r *http.Request) string {
	if byFile(r) {
		return "unix:" + r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()
	}
	return r.RemoteAddr
}
