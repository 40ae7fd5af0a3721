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
	Interval time.Duration `short:"i" default:"${interval}" placeholder:"DURATION" help:"Time between two looks, at least ${least} (${default})."`
	Count    int           `short:"n" placeholder:"N" help:"End after so many looks; by default q or Ctrl-C ends it."`
	JSON     bool          `name:"json" help:"Print a line of JSON for each look instead of a screen."`
}

// Help has examples.
func (*topCommand) Help() string {
	return `Examples:

  dreadlockctl top                                      q or Ctrl-C ends it
  dreadlockctl top -i 500ms
  dreadlockctl top --json -n 2 | tail -1 | jq .rates    rates of two seconds, for a script

Rates are per second since the look before. The hottest keys are those with the longest lines; the longest waits those
whose first waiter has stood there longest.`
}

// rows is how many keys of each list are asked for: more than a screen has.
const rows = 100

// Run shows one look after the other.
func (c *topCommand) Run(ctx context.Context, s *streams, g *globals) error {
	switch {
	case c.Interval < leastInterval:
		return badOption("--interval %s: want at least %s", c.Interval, leastInterval)
	case c.Count < 0:
		return badOption("--count %d: want a number of looks", c.Count)
	case !c.JSON && !term.IsTerminal(int(s.stdout.Fd())):
		return badOption("top draws a screen, but the output is no terminal: say --json, or dreadlockctl status for one look")
	}
	a, err := newAdmin(g)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, notIgnored(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)...)
	defer stop()
	if c.JSON {
		return c.print(ctx, s, a)
	}
	first, err := a.look(ctx) // what is wrong from the start is told on a line, not on the screen
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

// look is what the daemon said at one time.
type look struct {
	Time    time.Time  `json:"time"`
	Status  api.Status `json:"status"`
	Rates   *rates     `json:"rates"` // since the look before; null in the first
	Hottest []api.Key  `json:"hottest_keys"`
	Longest []api.Key  `json:"longest_waits"`
}

// look asks the daemon.
func (a *admin) look(ctx context.Context) (*look, error) {
	var l look
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

// print writes a line for each look.
func (c *topCommand) print(ctx context.Context, s *streams, a *admin) error {
	out := json.NewEncoder(s.stdout)
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	var before *look
	for n := 1; ; n++ {
		l, err := a.look(ctx)
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

// watch draws until the user has seen enough. A daemon that does not answer is asked again and again: it may be what is
// being watched for.
func (c *topCommand) watch(ctx context.Context, a *admin, screen *screen, first *look) {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	asking, quit := context.WithCancel(ctx)
	defer quit()

	type answer struct {
		look *look
		err  error
	}
	answers := make(chan answer, 1)
	shown := view{look: first, interval: c.Interval}
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
			if !asked { // one question at a time, however slow the daemon is
				asked = true
				go func() {
					l, err := a.look(asking)
					answers <- answer{l, err}
				}()
			}
			continue
		case got := <-answers:
			n++
			asked = false
			if shown.err = got.err; got.err == nil {
				got.look.Rates = ratesBetween(shown.look, got.look)
				shown.look = got.look
			}
		}
		screen.draw(&shown)
	}
}
