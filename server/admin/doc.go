// Package admin shows the inside of a running server over HTTP: metrics for machines, a status page for people, an API
// for scripts, and the one thing to do in an emergency: close a connection, which frees what it holds.
//
//	request ─► host ─┬──────────────────► / (the page), /healthz, /readyz ────┐
//	                 └─► token ─► origin ─► /api/v1, /metrics, /debug/pprof ──┴─► Source ─► the loops
//
// It runs on goroutines of its own and knows the server only as a [Source], whose methods may be called from anywhere:
// what a request costs the loops is the Source's to say. Nothing here is kept between two requests.
//
// # Who may ask
//
//   - An address that is not loopback needs a token. Everything but the page, which shows nothing by itself, and the two
//     answers for health checks asks for it then.
//   - Without a token, whoever has an account on the machine may ask, and the request must name a loopback host: a page
//     from elsewhere that has its own name point to 127.0.0.1 gets nothing.
//   - A browser on behalf of another site gets nothing at all, as reading costs the loops something. To change something
//     takes a POST.
//
// # What is bounded
//
// Connections, the size and the time of a request, the length of a page, scrapes at a time. A descriptor that is taken
// here is one of the reserve that the server keeps beside its clients, so the bound on connections is a promise to it:
// [MaxConnections].
//
// Listen takes the address, Serve serves. Start reading at routes.go; guard.go and token.go say who may ask, api.go
// answers in JSON, metrics.go for Prometheus; page.html is the page.
package admin
