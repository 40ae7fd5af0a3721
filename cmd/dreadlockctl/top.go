package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"dreadlock/server/api"
)

// topCommand watches the daemon.
type topCommand struct {
	Interval time.Duration `short:"i" default:"${interval}" placeholder:"DURATION" help:"Time between two updates, at least ${min_interval} (${default})."`
	Count    int           `short:"n" placeholder:"N" help:"Exit after N updates; by default q or Ctrl-C ends it."`
	JSON     bool          `name:"json" help:"Print a line of JSON for each update, instead of drawing a screen."`
}

// Help has examples.
func (*topCommand) Help() string {
	return `Examples:

  dreadlockctl top                                      q or Ctrl-C ends it
  dreadlockctl top -i 500ms
  dreadlockctl top --json -n 2 | tail -1 | jq .rates    rates over two seconds, for a script

Rates are per second since the previous update. The hottest keys are those with the longest queues. The longest waits are the
keys whose first waiter has waited longest.`
}

// rows is the number of keys of each list that are requested: more than fit on a screen.
const rows = 100

// Run shows one sample after another.
func (c *topCommand) Run(ctx context.Context, s *streams, g *globals) error {
	switch {
	case c.Interval < minInterval:
		return badOption("--interval %s: want at least %s", c.Interval, minInterval)
	case c.Count < 0:
		return badOption("--count %d: want a number of updates", c.Count)
	case !c.JSON && !term.IsTerminal(int(s.stdout.Fd())):
		return badOption("top draws a screen, but the output is not a terminal: use --json, or dreadlockctl status")
	case !c.JSON && os.Getenv("TERM") == "dumb":
		return badOption("top draws a screen, but this terminal cannot move its cursor (TERM=dumb): use --json, or dreadlockctl status")
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, notIgnored(append([]os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	}, dumping...)...)...)
	defer stop()
	if c.JSON {
		return c.print(ctx, s, a)
	}
	first, err := a.sample(ctx) // an error at the start is printed, not drawn on the screen
	if err != nil {
		return err
	}
	screen, err := openScreen(s)
	if err != nil {
		return err
	}
	defer screen.close()
	c.watch(ctx, a, screen, first)
	return nil
}

// sample is the state of the daemon at one time.
type sample struct {
	Time    time.Time  `json:"time"`
	Status  api.Status `json:"status"`
	Rates   *rates     `json:"rates"` // since the previous sample; null in the first
	Hottest []api.Key  `json:"hottest_keys"`
	Longest []api.Key  `json:"longest_waits"`
}

// sample asks the daemon for its state.
func (a *admin) sample(ctx context.Context) (*sample, error) {
	var l sample
	if err := a.get(ctx, &l.Status, nil, "status"); err != nil {
		return nil, err
	}
	l.Time = time.Now()
	for order, keys := range map[api.KeyOrder]*[]api.Key{api.ByWaiters: &l.Hottest, api.ByWait: &l.Longest} {
		p, err := a.keys(ctx, &api.KeyQuery{Order: order, Limit: rows})
		if err != nil {
			return nil, err
		}
		*keys = []api.Key{}
		for _, k := range p.entries {
			if k.Waiters > 0 {
				*keys = append(*keys, k)
			}
		}
	}
	return &l, nil
}

// print writes a line for each sample.
func (c *topCommand) print(ctx context.Context, s *streams, a *admin) error {
	out := json.NewEncoder(s.stdout)
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	var before *sample
	for n := 1; ; n++ {
		l, err := a.sample(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		l.Rates = ratesBetween(before, l)
		if err := out.Encode(l); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if before = l; n == c.Count {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// watch draws samples until the user quits. A daemon that does not answer is asked again at the next interval: the user may
// be waiting for its return.
func (c *topCommand) watch(ctx context.Context, a *admin, screen *screen, first *sample) {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	asking, quit := context.WithCancel(ctx)
	defer quit()

	type answer struct {
		sample *sample
		err    error
	}
	answers := make(chan answer, 1)
	shown := view{sample: first, interval: c.Interval}
	screen.draw(&shown)
	for n, asked := 1, false; n != c.Count; {
		select {
		case <-ctx.Done():
			return
		case key, open := <-screen.keys:
			switch {
			case !open:
				screen.keys = nil // the input has ended; signals still come
			case key == 'q' || key == 'Q' || key == ctrlC:
				return
			}
			continue
		case <-resized:
		case <-ticker.C:
			if !asked { // one request at a time, however slow the daemon is
				asked = true
				go func() {
					l, err := a.sample(asking)
					answers <- answer{l, err}
				}()
			}
			continue
		case got := <-answers:
			n++
			asked = false
			if shown.err = got.err; got.err == nil {
				got.sample.Rates = ratesBetween(shown.sample, got.sample)
				shown.sample = got.sample
			}
		}
		screen.draw(&shown)
	}
}
