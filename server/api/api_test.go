package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"dreadlock/server/api"
)

// Scripts depend on the JSON: names and forms stay as they are.
func TestJSON(t *testing.T) {
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	peer := api.Peer{Connection: 5, Address: "10.0.0.1:40001"}
	for _, c := range []struct {
		value any
		want  string
	}{
		{
			api.KeyPage{Keys: []api.Key{{Key: "a", Holder: peer, Token: 1<<60 + 1, Since: at, HeldSeconds: 1.5}}, Matching: 1},
			`{"keys":[{"key":"a","holder":{"connection":5,"address":"10.0.0.1:40001"},"token":"1152921504606846977",` +
				`"since":"2026-11-24T08:00:00Z","held_seconds":1.5,"waiters":0,"longest_wait_seconds":0}],"matching":1}`,
		},
		{
			api.Peer{Connection: 5, Address: "10.0.0.1:40001", Identity: "build7", Name: "ann@build7", Owner: "deploy"},
			`{"connection":5,"address":"10.0.0.1:40001","identity":"build7","name":"ann@build7","owner":"deploy"}`,
		},
		{
			api.EventPage{Events: []api.Event{
				{Seq: 7, Time: at, Kind: api.EventLost, Key: "a", Connection: 5, Address: "10.0.0.1:40001", Identity: "build7", Name: "ann@build7",
					Owner: "deploy", Token: 1<<60 + 1, HeldSeconds: 1.5, Reason: api.Kicked, By: "10.0.0.9:5"},
				{Seq: 8, Time: at, Kind: api.EventGranted, Key: "a", Connection: 6, Address: "10.0.0.2:1", Token: 2, WaitedSeconds: 2},
				{Seq: 9, Time: at, Kind: api.EventKicked, Connection: 5, Address: "10.0.0.1:40001", By: "10.0.0.9:5", Held: 1, Keys: []string{"a"}},
				{Seq: 10, Time: at, Kind: api.EventDeadlock, Key: "a", Connection: 5, Address: "10.0.0.1:40001", Deadlock: 3, HeldBy: 6},
			}, Next: 10, Lost: 2, Oldest: at, Restarted: true},
			`{"events":[{"seq":7,"time":"2026-11-24T08:00:00Z","kind":"lost","key":"a","connection":5,"address":"10.0.0.1:40001",` +
				`"identity":"build7","name":"ann@build7","owner":"deploy","token":"1152921504606846977","held_seconds":1.5,` +
				`"reason":"kicked","by":"10.0.0.9:5"},` +
				`{"seq":8,"time":"2026-11-24T08:00:00Z","kind":"granted","key":"a","connection":6,"address":"10.0.0.2:1","token":"2","waited_seconds":2},` +
				`{"seq":9,"time":"2026-11-24T08:00:00Z","kind":"kicked","connection":5,"address":"10.0.0.1:40001","by":"10.0.0.9:5","keys":["a"],"held":1},` +
				`{"seq":10,"time":"2026-11-24T08:00:00Z","kind":"deadlock","key":"a","connection":5,"address":"10.0.0.1:40001","deadlock":3,"held_by":6}],` +
				`"next":10,"lost":2,"oldest":"2026-11-24T08:00:00Z","restarted":true}`,
		},
		{
			api.Drain{Since: at, Until: at.Add(time.Minute), SecondsLeft: 2.5, HeldKeys: 3, Waiters: 1},
			`{"since":"2026-11-24T08:00:00Z","until":"2026-11-24T08:01:00Z","seconds_left":2.5,"held_keys":3,"waiters":1,"over":false}`,
		},
		{
			api.Takeover{At: at, Count: 2, FromPID: 4711, FromVersion: "v1", PID: 4800, Version: "v2", PauseSeconds: 0.0125, Connections: 9,
				HeldKeys: 3, Waiters: 1, Closed: 2},
			`{"at":"2026-11-24T08:00:00Z","count":2,"from_pid":4711,"from_version":"v1","pid":4800,"version":"v2","pause_seconds":0.0125,` +
				`"connections":9,"held_keys":3,"waiters":1,"closed":2}`,
		},
		{
			api.Waiter{Peer: peer, Since: at, WaitedSeconds: 2, TimeoutSeconds: 30},
			`{"connection":5,"address":"10.0.0.1:40001","since":"2026-11-24T08:00:00Z","waited_seconds":2,"timeout_seconds":30}`,
		},
		{
			api.ConnectionPage{Connections: []api.Connection{{Peer: peer, Since: at, Loop: 1, State: api.Waiting, Held: 1,
				Holds: []string{"a"}, WaitsFor: "b", WaitedSeconds: 3}}, Matching: 7, Next: "c"},
			`{"connections":[{"connection":5,"address":"10.0.0.1:40001","since":"2026-11-24T08:00:00Z","connected_seconds":0,"loop":1,` +
				`"state":"waiting","held":1,"holds":["a"],"waits_for":"b","waited_seconds":3}],"matching":7,"next":"c"}`,
		},
		{
			api.Deadlocks{Cycles: []api.Cycle{{ID: 1, Found: at, Waits: []api.Wait{{Peer: peer, WaitsFor: "a", Since: at, HeldBy: 6}}}}, Found: 1},
			`{"cycles":[{"id":1,"found":"2026-11-24T08:00:00Z","waits":[{"connection":5,"address":"10.0.0.1:40001","waits_for":"a",` +
				`"since":"2026-11-24T08:00:00Z","waited_seconds":0,"held_by":6}]}],"found":1,"broken":0,"breaking":false}`,
		},
		{
			api.Status{Started: at, CertificateExpires: at, Listen: []string{"unix:///s"}},
			`{"version":"","pid":0,"address":"","listen":["unix:///s"],"started":"2026-11-24T08:00:00Z","uptime_seconds":0,"loops":0,` +
				`"connections":0,"max_connections":0,"held_keys":0,"waiters":0,"oldest_hold_seconds":0,"oldest_wait_seconds":0,"deadlocks":0,"memory_bytes":0,"memory_limit_bytes":0,"lock_delay_seconds":0,"resting_keys":0,"certificate_expires":"2026-11-24T08:00:00Z",` +
				`"counters":{"commands":null,"accepted":0,"refused":null,"accept_errors":null,"grants":0,"timeouts":0,"disconnects":null,` +
				`"limit_hits":null,"moves":0,"messages":0,"wake_ups":0,"deadlocks_found":0,"deadlocks_broken":0,"takeovers_failed":0,` +
				`"waits":{"bounds":null,"counts":null,"sum":0},"waits_by_outcome":null,"holds":{"bounds":null,"counts":null,"sum":0}}}`,
		},
		{
			api.Status{Started: at, Counters: api.Counters{Commands: []api.CommandCount{{Kind: "lock", Outcome: "locked", Count: 9}}}},
			`{"version":"","pid":0,"address":"","listen":null,"started":"2026-11-24T08:00:00Z","uptime_seconds":0,"loops":0,"connections":0,"max_connections":0,` +
				`"held_keys":0,"waiters":0,"oldest_hold_seconds":0,"oldest_wait_seconds":0,"deadlocks":0,"memory_bytes":0,"memory_limit_bytes":0,"lock_delay_seconds":0,"resting_keys":0,"counters":{"commands":[{"kind":"lock","outcome":"locked","count":9}],"accepted":0,` +
				`"refused":null,"accept_errors":null,"grants":0,"timeouts":0,"disconnects":null,"limit_hits":null,"moves":0,"messages":0,"wake_ups":0,"deadlocks_found":0,` +
				`"deadlocks_broken":0,"takeovers_failed":0,"waits":{"bounds":null,"counts":null,"sum":0},"waits_by_outcome":null,"holds":{"bounds":null,"counts":null,"sum":0}}}`,
		},
	} {
		got, err := json.Marshal(c.value)
		if err != nil || string(got) != c.want {
			t.Errorf("%T: %v\n got %s\nwant %s", c.value, err, got, c.want)
		}
	}
}
