package api

import "time"

// Fleet is what a daemon knows about its fleet: the daemons that share one lock space, and the store where they meet.
type Fleet struct {
	// Store is the kind of the store: etcd.
	Store string `json:"store"`
	// Prefix is what all keys of the fleet begin with there.
	Prefix string `json:"prefix"`
	// Space names the lock space: 16 hexadecimal digits. It is empty until the daemon was in touch for the first time.
	Space string `json:"space,omitempty"`
	// InTouch says whether the daemon has a session with the store. Without one nothing is granted.
	InTouch bool `json:"in_touch"`
	// Reason says why it has none.
	Reason string `json:"reason,omitempty"`
	// Since is when the session began, or ended.
	Since time.Time `json:"since"`
	// Lease is the lease of the session, hexadecimal; it is empty without a session. TTLSeconds is how long it lasts if nothing renews
	// it, and LeaseLeftSeconds how long grants may still be told, which ends well before it.
	Lease            string  `json:"lease,omitempty"`
	TTLSeconds       float64 `json:"ttl_seconds,omitempty"`
	LeaseLeftSeconds float64 `json:"lease_left_seconds"`
	// WatchLagSeconds is how long what was written last took until it was seen here; or for how long something has been written that
	// was not seen yet, if that is longer.
	WatchLagSeconds float64 `json:"watch_lag_seconds"`
	// Places is the number of places in lines that this daemon has, AllPlaces of the whole fleet.
	Places    int `json:"places"`
	AllPlaces int `json:"all_places"`
	// Lines is the number of keys of which this daemon knows places, and Tries how often it has asked whether a key is free that it
	// had no place for.
	Lines int    `json:"lines"`
	Tries uint64 `json:"tries"`
	// Members are those of the store, by endpoint.
	Members []StoreMember `json:"members"`
	// Daemons are those of the fleet, this one among them, by address.
	Daemons []FleetDaemon `json:"daemons"`
	// Warnings say what is wrong with how the store is run, a sentence each, and what to do about it.
	Warnings []string `json:"warnings,omitempty"`
	// Transactions and Operations have been written by this daemon: an operation is a place that was taken, left or refused, or a sign of
	// life. Repeats are those transactions that were written again, as no answer came.
	Transactions uint64 `json:"transactions"`
	Operations   uint64 `json:"operations"`
	Repeats      uint64 `json:"repeats"`
	// WatchRestarts is how often the watch had to be begun anew, and Lists how often all places had to be read.
	WatchRestarts uint64 `json:"watch_restarts"`
	Lists         uint64 `json:"lists"`
	// Lost counts the sessions that have ended, by reason: [LossReasons]. Each time the clients that held a key or waited were dropped.
	Lost map[string]uint64 `json:"lost"`
}

// StoreMember is a member of the store.
type StoreMember struct {
	Endpoint  string `json:"endpoint"`
	Reachable bool   `json:"reachable"`
	// Error says why it cannot be reached.
	Error   string `json:"error,omitempty"`
	Version string `json:"version,omitempty"`
	Leader  bool   `json:"leader"`
	// SizeBytes is the size of its database, and QuotaBytes what that may have; 0 if it does not say so.
	SizeBytes  int64 `json:"size_bytes,omitempty"`
	QuotaBytes int64 `json:"quota_bytes,omitempty"`
	// Alarms are those that the member has raised: NOSPACE, CORRUPT.
	Alarms []string `json:"alarms,omitempty"`
}

// FleetDaemon is a daemon of the fleet.
type FleetDaemon struct {
	// Lease names the daemon in the store, hexadecimal.
	Lease string `json:"lease"`
	// Address is where others reach it: --fleet-advertise.
	Address string `json:"address"`
	Version string `json:"version"`
	// Space is the lock space that it serves; see Fleet.Space.
	Space string `json:"space"`
	// Self says that it is the daemon that was asked.
	Self bool `json:"self,omitempty"`
	// SeenSeconds is how long ago its last sign of life was seen. They come every 2 s.
	SeenSeconds float64 `json:"seen_seconds"`
	Places      int     `json:"places"`
}

// The reasons for which a session with the store ends.
const (
	LostTime    = "time"    // the lease could not be renewed in time
	LostLease   = "lease"   // the store has ended the lease: it was revoked, or has expired
	LostPlace   = "place"   // a place was taken away that the daemon had not left
	LostStopped = "stopped" // the daemon stops
)

// LossReasons are all keys of Fleet.Lost.
var LossReasons = []string{LostTime, LostLease, LostPlace, LostStopped}
