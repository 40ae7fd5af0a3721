package api

import "time"

// Takeover is a restart that loses no lock: one process, the predecessor, has handed all that it served to another one, the
// successor, which goes on in its place.
type Takeover struct {
	// At is when the successor began to serve.
	At time.Time `json:"at"`
	// Count is the number of takeovers since the server started with nothing, this one included.
	Count uint64 `json:"count"`
	// FromPID and FromVersion are those of the predecessor, PID and Version of the successor.
	FromPID     int    `json:"from_pid"`
	FromVersion string `json:"from_version"`
	PID         int    `json:"pid"`
	Version     string `json:"version"`
	// PauseSeconds is how long the loops stood still, those of the predecessor and then those of the successor: nobody was answered.
	PauseSeconds float64 `json:"pause_seconds"`
	// Connections, HeldKeys and Waiters are what was handed over.
	Connections int `json:"connections"`
	HeldKeys    int `json:"held_keys"`
	Waiters     int `json:"waiters"`
	// Closed are the connections that could not be handed over, those by TLS: they were closed, and what they held is lost.
	Closed int `json:"closed"`
}
