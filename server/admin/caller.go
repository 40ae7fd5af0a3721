package admin

import (
	"net"
	"net/http"

	"dreadlock/server/certs"
	"dreadlock/server/unixsock"
)

// callerOf says who has sent a request, for the log: the address and, where the kernel or a certificate tells, the user.
//
//	10.0.0.7:51234
//	10.0.0.7:51234 ops.example
//	unix:/run/dreadlock/admin-6001.sock uid 0 pid 4711
func callerOf(r *http.Request) string {
	from, user := r.RemoteAddr, ""
	switch {
	case byFile(r):
		from = "unix:" + r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()
		user = unixsock.Peer(placeOf(r).Conn)
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		user = certs.Name(r.TLS.PeerCertificates[0])
	}
	if user == "" {
		return from
	}
	return from + " " + user
}
