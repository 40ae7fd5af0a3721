// Package api has the words in which a running server tells what it does: who holds which key, who waits, which
// connections there are, what has been counted. The server fills these types in, package admin serves them as JSON, and
// dreadlockctl reads that: the types are the one definition of the API.
//
//	server ──► Status, KeyPage, Key, ConnectionPage, Connection, Deadlocks ──► admin ══ JSON ══► dreadlockctl, the page
//
// Everything here is a copy that was true when its loop was asked. A page that spans loops, or that follows another one,
// is not a snapshot of one instant: while it was collected, the server went on.
//
// Times are wall-clock times; durations are seconds, as in Prometheus.
package api
