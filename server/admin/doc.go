// Package admin is the server's interface for operators, over HTTP: metrics for machines, a status page for people, an API
// for scripts, and the one remedy for an emergency: to close a connection, which frees what it holds.
//
//	TCP, TLS, Unix sockets
//	   │
//	request ─► host ─┬──────────────────► / (the page), /healthz, /readyz ────┐
//	                 └─► token ─► origin ─► /api/v1, /metrics, /debug/pprof ──┴─► Source ─► the loops
//
// It runs on goroutines of its own and knows the server only as a [Source], whose methods are safe from any goroutine.
// The Source decides what a request costs the loops. Nothing but the token is kept from one request to the next.
//
// # Who may ask
//
//   - Who may connect to a Unix socket may ask: the mode of the file decides, and there are no other conditions but the last.
//   - An address that is not loopback needs a token. Every request must then show it, except those for the page, which
//     contains no data, and for the two health checks.
//   - Without a token, every user of the machine may ask, and the request must name a loopback host. So a web page whose
//     own name was made to point to 127.0.0.1 gets nothing.
//   - A browser gets nothing on behalf of another site, since even reading costs the loops time. Changes need a POST.
//
// # What is bounded
//
// The number of connections, of requests and of streams at a time, the size and the duration of a request, the length of a page. A
// connection here takes a descriptor of the reserve that the server keeps beside its clients, so the server relies on the
// bound for connections: [MaxConnections]. None of the bounds keeps a health check out: see limit.go.
//
// [Listen] takes the addresses, [Server.Serve] serves; package adminsock knows where the default socket is. Start reading at
// routes.go. address.go and limit.go are about listening, guard.go and token.go say who may ask,
// api.go answers in JSON, as openapi.json describes it, stream.go goes on answering, metrics.go answers Prometheus, and page.html is
// the page.
package admin
