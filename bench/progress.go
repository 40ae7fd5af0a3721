package bench

import (
	"fmt"
	"io"
	"time"
)

// progressEvery is the time between two updates of the progress line on a terminal.
const progressEvery = 200 * time.Millisecond

// Progress shows people how runs proceed: on a terminal as one line that is updated, elsewhere as a line for each run. A
// nil Progress shows nothing. It does not count errors, since the first one ends everything; it shows which run failed.
type Progress struct {
	out      io.Writer
	terminal bool
	started  time.Time
	steps    int
	done     int

	step       string
	stepStart  time.Time
	operations int64
	at         time.Time
}

// NewProgress writes to out. Steps is the total number of runs; 0 if unknown.
func NewProgress(out io.Writer, terminal bool, steps int) *Progress {
	return &Progress{out: out, terminal: terminal, started: time.Now(), steps: steps}
}

// begin shows that a run begins.
func (p *Progress) begin(server, workload string) {
	if p == nil {
		return
	}
	p.done++
	p.stepStart = time.Now()
	p.at, p.operations = p.stepStart, 0
	of := ""
	if p.steps > 0 {
		of = fmt.Sprintf("/%d", p.steps)
	}
	p.step = fmt.Sprintf("%5.1fs  %d%s  %s  %s", time.Since(p.started).Seconds(), p.done, of, workload, server)
	if p.terminal {
		p.print("")
	} else {
		fmt.Fprintln(p.out, p.step) //nolint:errcheck // a lost progress line does not matter
	}
}

// update takes the number of operations that the run has completed so far.
func (p *Progress) update(operations int64) {
	if p == nil || !p.terminal {
		return
	}
	now := time.Now()
	since := now.Sub(p.at)
	if since < progressEvery/2 {
		return
	}
	rate := float64(operations-p.operations) / since.Seconds()
	p.at, p.operations = now, operations
	p.print(fmt.Sprintf("  %.0f/s", rate))
}

// end removes the line of the run; that of a failed run stays and is marked.
func (p *Progress) end(failed bool) {
	switch {
	case p == nil:
	case p.terminal && failed:
		p.print("  FAILED\n")
	case p.terminal:
		fmt.Fprint(p.out, "\r\x1b[K") //nolint:errcheck // a lost progress line does not matter
	case failed:
		fmt.Fprintln(p.out, p.step+"  FAILED") //nolint:errcheck // as above
	}
}

func (p *Progress) print(more string) {
	fmt.Fprint(p.out, "\r\x1b[K", p.step, more) //nolint:errcheck // a lost progress line does not matter
}
