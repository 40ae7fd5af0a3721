package faults

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"dreadlock/bench"
)

const (
	// soakKeepalive is short, so that hosts often vanish, and long enough for [randomWeather].
	soakKeepalive = 4 * time.Second
	soakRound     = 20 * time.Second // the history of a round is checked at its end, and forgotten
	soakSettles   = 0.2              // part of the time in which the daemon comes to its size
	soakReturns   = 10 * time.Second // after the last client, to goroutines and descriptors as at the beginning
	soakSpare     = 16               // goroutines and descriptors more than that
)

// Soaked is what came of a soak.
type Soaked struct {
	*Outcome
	Trends []*bench.Trend // memory, goroutines, descriptors
	Rounds int
}

// Soak runs a mixed load with churn, faults, timeouts and deadlocks for a time, and checks everything that the suite checks. Its
// error wraps ErrViolated if a promise was not kept.
func Soak(ctx context.Context, o Options, length time.Duration) (*Soaked, error) {
	s := &Soaked{}
	s.Outcome = runTrial(ctx, &o, &Case{
		Name:    "soak",
		Fault:   "everything mixed for " + length.String(),
		Promise: "no violation, counters that balance, nothing that grows",
		run:     func(t *trial) string { return s.run(t, length) },
	})
	switch {
	case s.Skipped != "":
		return s, fmt.Errorf("faults: %s", s.Skipped)
	case s.Failed():
		return s, fmt.Errorf("%w: %s", ErrViolated, s.summary())
	}
	return s, ctx.Err()
}

// run is the case.
func (s *Soaked) run(t *trial, length time.Duration) string {
	l := t.newLab(3, "--loops", "2", "--keepalive", soakKeepalive.String())
	before := t.sample(l.daemon)
	w := bystanders()
	w.Connections, w.Keys = 50, 20
	ld := l.startLoad(w)

	sampling, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer t.recovered()
		s.record(t, l.daemon, sampling, max(length/600, 100*time.Millisecond))
	}()
	stop := sync.OnceFunc(func() {
		close(sampling)
		<-stopped
	})
	defer stop()
	began := time.Now()
	for time.Since(began) < length {
		s.Rounds++
		l.soakRound(s.Rounds, min(soakRound, max(length-time.Since(began), time.Second)))
		fmt.Fprintf(t.options.Progress, "%6.1fs  round %d: %d commands, %d violations\n", //nolint:errcheck // progress
			time.Since(began).Seconds(), s.Rounds, l.past.answered()+ld.commands(), t.violated())
	}
	ld.stop()
	stop()
	var after sample
	t.eventually(soakReturns, "goroutines and descriptors return to what they were", func() error {
		after = t.sample(l.daemon)
		if after.goroutines > before.goroutines+soakSpare || after.descriptors > before.descriptors+soakSpare {
			return fmt.Errorf("%v, and it began with %v", after, before)
		}
		return nil
	})
	var st status
	l.ask(&st)
	if st.Counters.DeadlocksFound == 0 {
		t.violate("no deadlock was found among those that were made")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d deadlocks; ended connections: %s", st.Counters.DeadlocksFound, st.ends())
	for _, trend := range s.Trends {
		fmt.Fprintf(&b, "; %s: %+.1f an hour, at the end %.0f", trend.Name, trend.Slope(soakSettles), trend.Values[len(trend.Values)-1])
	}
	return b.String()
}

// soakRound does everything at the same time, then checks and forgets the history.
func (l *lab) soakRound(round int, length time.Duration) {
	l.prefix = fmt.Sprintf("r%dx", round)
	wild, flaky, doomed := l.remotes[0], l.remotes[1], l.remotes[2]
	end := time.Now().Add(length)
	var killed atomic.Int64
	l.t.parallel(5, func(i int) {
		switch i {
		case 0:
			l.compete(40, length, []dialer{l.near, wild.dial}, 10)
		case 1:
			for time.Now().Before(end) {
				wild.wire.set(randomWeather())
				l.t.pause(time.Second)
			}
			wild.wire.set(weather{})
		case 2:
			for n := 0; n == 0 || time.Until(end) > vanishLimit(soakKeepalive); n++ {
				l.vanishAndReturn(flaky, fmt.Sprintf("%sflaky%d", l.prefix, n))
			}
		case 3:
			for time.Now().Before(end) {
				l.killClient(doomed, fmt.Sprintf("%skilled%d", l.prefix, killed.Add(1)))
				l.t.pause(time.Second)
			}
		case 4:
			for n := 0; time.Now().Before(end); n++ {
				l.deadlock(fmt.Sprintf("%sdead%d", l.prefix, n))
			}
		}
	})
	l.forget()
}

// randomWeather returns a weather, for about a second, that no connection ends by: it is never a cut, and what is lost is less than
// a silent host may lose.
//
// The least that ends a connection is one probe after the other without an answer: a probe a second, from soakKeepalive to twice
// that, so as many as soakKeepalive has seconds, 4. A probe and its answer are two packets: at 2 % loss, 4 % of the probes find no
// answer, at 1 %, 2 %. Each of the two is every fifth weather, and each probe of a host has another one, so that it finds no
// answer with a probability of 1.2 %, and four do with 2e-8. Some 20 clients wait far away, and each is silent for so long at
// most every 4 seconds: 18,000 times an hour, which makes one end in 2,800 hours. With a keepalive of 1 s one lost packet would
// be enough, and each minute has some.
func randomWeather() weather {
	switch rand.IntN(5) {
	case 0:
		return weather{}
	case 1:
		return weather{loss: 0.02}
	case 2:
		return weather{delay: 5 * time.Millisecond, jitter: 10 * time.Millisecond}
	case 3:
		return weather{duplicate: 0.2, reorder: 0.2}
	}
	return weather{loss: 0.01, reorder: 0.1, duplicate: 0.1, jitter: 3 * time.Millisecond}
}

// vanishAndReturn lets a host vanish whose clients hold and wait, until others have their keys.
func (l *lab) vanishAndReturn(r *remote, key string) {
	const clients = 10
	gone, heirs := make([]*client, clients), make([]*client, clients)
	for i := range gone {
		name := key + "x" + strconv.Itoa(i)
		gone[i], heirs[i] = l.dial(r.dial), l.dial(l.near)
		gone[i].mustLock(name)
		heirs[i].waits(name, 1)
	}
	mayEnd(gone...)
	r.wire.set(weather{cut: true})
	began := time.Now()
	limit := vanishLimit(soakKeepalive)
	for i, c := range heirs {
		if got := c.answerWithin(limit + patience); got != locked {
			l.t.violate("the next in line for key %sx%d of a vanished host was answered %q", key, i, got)
		}
	}
	if took := time.Since(began); took > limit {
		l.t.violate("the keys of a vanished host are free after %s, want %s", seconds(took), seconds(limit))
	}
	r.wire.set(weather{})
	for i := range gone {
		gone[i].close()
		heirs[i].close()
	}
}

// killClient kills a process whose connections hold keys.
func (l *lab) killClient(r *remote, key string) {
	process, from := l.startClient(r)
	const clients = 20
	gone := make([]*client, clients)
	heir := l.dial(l.near)
	for i := range gone {
		gone[i] = l.dial(from)
		gone[i].mustLock(key + "x" + strconv.Itoa(i))
	}
	heir.waits(key+"x0", 1)
	mayEnd(gone...)
	if rand.IntN(2) == 0 {
		_ = process.Process.Signal(syscall.SIGSTOP)
	}
	_ = process.Process.Kill()
	heir.want(locked)
	heir.close()
	l.endProcesses()
}

// deadlock makes two clients wait for each other, until one of them times out.
func (l *lab) deadlock(key string) {
	const shorter, longer = 2 * time.Second, 10 * time.Second
	a, b := l.dial(l.near), l.dial(l.near)
	a.mustLock(key + "a")
	b.mustLock(key + "b")
	a.send(command(lock, key+"b", shorter))
	b.send(command(lock, key+"a", longer))
	a.want(timedOut)
	a.unlock(key + "a")
	b.want(locked)
	a.close()
	b.close()
}

// sample is what the daemon uses at a moment.
type sample struct {
	memory                  int64 // bytes
	goroutines, descriptors int
}

func (s sample) String() string {
	return fmt.Sprintf("%d goroutines and %d descriptors", s.goroutines, s.descriptors)
}

// sample looks at the daemon. It stops the case if the daemon has ended.
func (t *trial) sample(d *daemon) sample {
	s := sample{memory: t.resident(d)}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.pid()))
	t.must(err)
	s.descriptors = len(open)
	request, err := http.NewRequestWithContext(t.ctx, http.MethodGet, "http://localhost/metrics", http.NoBody)
	t.must(err)
	response, err := d.admin.Do(request)
	t.must(err)
	defer response.Body.Close() //nolint:errcheck // it was only read
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	t.must(err)
	for line := range strings.Lines(text.String()) {
		if n, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			s.goroutines, err = strconv.Atoi(strings.TrimSpace(n))
			t.must(err)
		}
	}
	return s
}

// record samples the daemon until done.
func (s *Soaked) record(t *trial, d *daemon, done <-chan struct{}, every time.Duration) {
	const mebibyte = 1 << 20
	memory, goroutines, descriptors := &bench.Trend{Name: "MiB"}, &bench.Trend{Name: "goroutines"}, &bench.Trend{Name: "descriptors"}
	s.Trends = []*bench.Trend{memory, goroutines, descriptors}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for began := time.Now(); ; {
		now := t.sample(d)
		at := time.Since(began).Hours()
		for trend, value := range map[*bench.Trend]float64{
			memory: float64(now.memory) / mebibyte, goroutines: float64(now.goroutines), descriptors: float64(now.descriptors),
		} {
			trend.Hours, trend.Values = append(trend.Hours, at), append(trend.Values, value)
		}
		select {
		case <-tick.C:
		case <-done:
			return
		}
	}
}
