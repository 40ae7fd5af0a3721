package main

import (
	"time"

	"dreadlock/proto/client"
)

// maxKillMargin is how long before the daemon gives the key to another the command is killed, at most: more than a kill takes
// on a machine that is busy.
const maxKillMargin = 2 * time.Second

// killMargin returns that time for a daemon that gives the key away after the time silence. A third of it leaves the command a
// sixth between SIGTERM, which comes after half of it, and SIGKILL.
func killMargin(silence time.Duration) time.Duration { return min(silence/3, maxKillMargin) }

// grace is the time between SIGTERM and SIGKILL, unless the daemon gives the key to another sooner.
func (c *lockCommand) grace() time.Duration {
	if c.Grace == nil {
		return defaultGrace
	}
	return time.Duration(*c.Grace)
}

// silentGrace returns the time that the command has if the daemon falls silent, at most: until it has to have ended because
// the daemon, which does not hear of us, gives the key to another.
func silentGrace(s client.Silence) time.Duration { return s.Server - s.Lost - killMargin(s.Server) }

// killTime returns when the command is killed that was told to end at the time began: after the grace period, but before the
// daemon gives the key to another, unless the command may run beside the next holder anyway.
func (w *work) killTime(began time.Time) time.Time {
	at := began.Add(w.grace())
	if until := w.lock.Until(); !until.IsZero() && w.OnLost == "stop" {
		if before := until.Add(-killMargin(w.lock.Silence().Server)); before.Before(at) {
			return later(began, before)
		}
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// loss says how the key was lost.
func (c *lockCommand) loss(lock *client.Lock) string {
	if lock.Until().IsZero() {
		return "lost the connection to " + lock.Server() + ", and with it the key " + c.shortKey()
	}
	return lock.Server() + " has not answered for " + lock.Silence().Lost.String() + ", so the key " + c.shortKey() + " is lost"
}

// warnOfSilence says what the options ask for and the daemon does not allow.
func (c *lockCommand) warnOfSilence(s *streams, lock *client.Lock) {
	silence := lock.Silence()
	switch most := silentGrace(silence); {
	case c.Heartbeat > 0 && silence.Heartbeat == 0:
		s.warn("the daemon is too old for --heartbeat: nothing is sent while the key is held")
	case c.Grace != nil && silence.Heartbeat > 0 && silence.Server > 0 && len(c.Command) > 0 && c.OnLost == "stop" && c.grace() > most:
		s.warn("--grace %s is %s if the daemon does not answer: it gives the key to another when it has not heard of this host for %s; "+
			"a shorter --keepalive here leaves more, or a longer one there", c.grace(), most.Round(time.Millisecond), silence.Server)
	}
	if silence.Heartbeat > 0 {
		c.verbose(s, "a heartbeat every %s; lost after %s without an answer", silence.Heartbeat, silence.Lost)
	}
}
