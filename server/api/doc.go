// Package api defines what a running server reports about itself: who holds which key, who waits, which connections there
// are, what has been counted and what has happened. The server fills in these types, package admin serves them as JSON, and
// dreadlockctl reads that: the types are the one definition of the API.
//
//	server ──► Status, KeyPage, Key, ConnectionPage, Connection, Deadlocks, EventPage ──► admin ══ JSON ══► dreadlockctl, the page
//
// Everything here is a copy of what was true when the loop was asked. Pages of several loops, and pages that follow one
// another, are not a snapshot of one instant: the server goes on while they are collected.
//
// Times are wall-clock times; durations are in seconds, as in Prometheus.
package api
