package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/metrics"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// statusRequests returns a channel that receives SIGUSR1. It stays registered until the process ends, since by default the
// signal ends the process.
func statusRequests() <-chan os.Signal {
	requests := make(chan os.Signal, 1)
	signal.Notify(requests, syscall.SIGUSR1)
	return requests
}

// reportStatus logs the resource use of the process, and who holds what, at every request until ctx is done, whatever the log
// level.
func reportStatus(ctx context.Context, log zerolog.Logger, requests <-chan os.Signal, holders func(context.Context) error) {
	began := time.Now()
	for {
		select {
		case <-requests:
		case <-ctx.Done():
			return
		}
		if err := holders(ctx); err != nil && ctx.Err() == nil {
			log.Log().Str("reason", err.Error()).Msg("who holds what is not known")
		}
		usage := []metrics.Sample{
			{Name: "/gc/heap/allocs:objects"},
			{Name: "/memory/classes/heap/objects:bytes"},
			{Name: "/gc/cycles/total:gc-cycles"},
		}
		metrics.Read(usage)
		log.Log().
			Str("uptime", api.Age(time.Since(began).Seconds())).
			Uint64("allocated_objects", usage[0].Value.Uint64()).
			Uint64("heap_bytes", usage[1].Value.Uint64()).
			Uint64("gc_cycles", usage[2].Value.Uint64()).
			Msg("status")
	}
}
