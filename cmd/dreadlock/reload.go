package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
)

// reloadable is something that can be read again while the daemon serves.
type reloadable struct {
	what string       // for the log
	read func() error // what was read before stays in use if it fails
}

// reloadRequests returns a channel that receives SIGHUP. It stays registered until the process ends, since by default the
// signal ends the process. Requests that come during a reload are one more reload.
func reloadRequests() <-chan os.Signal {
	requests := make(chan os.Signal, 1)
	signal.Notify(requests, syscall.SIGHUP)
	return requests
}

// reload reads everything again and says so in one line of the log. What cannot be read does not keep the rest from being read.
func reload(log zerolog.Logger, all []reloadable) {
	read, failed := []string{}, []string{}
	for _, r := range all {
		if err := r.read(); err != nil {
			failed = append(failed, r.what+": "+plain(err))
		} else {
			read = append(read, r.what)
		}
	}
	if len(failed) > 0 {
		log.Error().Strs("read", read).Strs("failed", failed).Msg("reloaded in part: what cannot be read stays as it was")
		return
	}
	log.Info().Strs("read", read).Msg("reloaded")
}
