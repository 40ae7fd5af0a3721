package server

import (
	"flag"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
)

// Several servers share a store. Everything is real but sockets, loops, time, and the store, of which a run draws when it writes,
// when the servers notice, which answers are lost, and when leases end. What clients may conclude is checked after every step:
//
//   - A client that was told that it holds a key, and has neither given it up nor lost its connection, is the only one of all
//     servers, as long as the lease of its server lasts.
//   - Of two clients of which the second has asked when the first stood in line already, the first is granted the key first,
//     whatever their servers are. Within a server it is enough that the first has asked before.
//   - A later grant of a key has a greater token.
//   - A key that was free all the time is found free.
//   - Nobody is told that he holds a key when the time of the session is up, or the server knows that its lease is gone.
//   - With a lock delay, a key whose holder was lost is kept from the next for that long, whatever daemon dies or starts meanwhile.
//   - Who has ended its side has the answers to all that needs no waiting.
//
// And when nothing is under way, all is answered but waits, a key that somebody waits for is held by somebody, the servers know just
// the places that there are, and have none that they do not need.

var (
	fleetSeed    = flag.Uint64("fleet.seed", 0, "run the simulation of a fleet with this seed only")
	fleetBegin   = flag.Uint64("fleet.begin", 1, "begin the simulation of a fleet with this seed")
	fleetForSome = flag.Int("fleet.steps", 0, "steps of the simulation of a fleet; 0 for 20,000, or 100,000 without -short")
)

// fleetRun is the number of steps of a run.
const fleetRun = 150

// runFleet does a run, and returns the number of steps and why it has failed.
func runFleet(seed uint64) (steps, locked int, err error) {
	w := newFleetWorld(seed)
	defer func() {
		if r := recover(); r != nil {
			text := fmt.Sprint(r)
			if f, ok := r.(fleetFailure); ok {
				text = f.text
			} else {
				text += "\n" + string(debug.Stack())
			}
			err = fmt.Errorf("seed %d: %s\n%s", seed, text, strings.Join(w.trace, "\n"))
		}
	}()
	for ; steps < fleetRun; steps++ {
		w.step()
		w.hear()
	}
	w.quiet()
	w.idle()
	return steps, w.locked, nil
}

func TestFleetSimulation(t *testing.T) {
	if *fleetSeed != 0 {
		if _, _, err := runFleet(*fleetSeed); err != nil {
			t.Fatal(err)
		}
		return
	}
	most := *fleetForSome
	if most == 0 {
		most = map[bool]int{true: 20_000, false: 100_000}[testing.Short()]
	}
	done, granted := 0, 0
	for seed := *fleetBegin; done < most; seed++ {
		steps, locked, err := runFleet(seed)
		done += steps
		granted += locked
		if err != nil {
			t.Fatalf("after %d steps, run it again with -fleet.seed=%d: %v", done, seed, err)
		}
	}
	t.Logf("%d steps, %d grants", done, granted)
	if granted < done/20 {
		t.Errorf("%d steps, and only %d grants", done, granted)
	}
}
