package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Options say how to measure. They are the same for all workloads. The zero value is good.
type Options struct {
	// Loops is the number of event loops of the generator; 0 is one for every two processors.
	Loops int
	// Patience is how long a reply may take before it counts as lost; 0 is 30 s.
	Patience time.Duration
	// Progress shows how a run goes on; nil shows nothing.
	Progress *Progress

	// beside runs during the window, which lasts until it has returned; nil for none.
	beside func(context.Context) error
}

// defaultPatience is longer than a busy machine keeps any process waiting.
const defaultPatience = 30 * time.Second

func (o *Options) patience() time.Duration {
	if o.Patience > 0 {
		return o.Patience
	}
	return defaultPatience
}

func (o *Options) loops() int {
	if o.Loops > 0 {
		return o.Loops
	}
	return max(1, processors/2)
}

// Run measures one workload on one server. Its error is a *Violation if the server answered wrongly.
func Run(ctx context.Context, target *Target, w Workload, o Options) (*Result, error) {
	results, err := run(ctx, target, w, o, nil)
	if err != nil {
		return nil, fmt.Errorf("%s on %s: %w", w.Name(), target.Name, err)
	}
	return results[0], nil
}

// Change is something that happens to a server under load.
type Change struct {
	// Server is the name of the changed server in tables.
	Server string
	// Make makes the change. It returns when it is made.
	Make func(context.Context) error
}

// RunChanged measures one workload on one server, before and after a change. The load goes on meanwhile, on the same connections.
// The workload has to be one of commands.
func RunChanged(ctx context.Context, target *Target, w Workload, o Options, change Change) (before, after *Result, err error) {
	results, err := run(ctx, target, w, o, &change)
	if err != nil {
		return nil, nil, fmt.Errorf("%s on %s: %w", w.Name(), change.Server, err)
	}
	return results[0], results[1], nil
}

// run returns a result, and with a change another one, of the time after it.
func run(ctx context.Context, target *Target, w Workload, o Options, change *Change) (_ []*Result, err error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	if err := target.Can(&w); err != nil {
		return nil, err
	}
	// Garbage of the last run is not collected at the cost of this one.
	runtime.GC()
	g, err := newGenerator(target, o.loops(), o.patience())
	if err != nil {
		return nil, err
	}
	defer g.close()
	r := &runner{
		generator: g,
		workload:  &w,
		prefix:    keyPrefix(),
		progress:  o.Progress,
		change:    change,
		beside:    o.beside,
	}
	r.begin(target.Name)
	r.progress.begin(target.Name, w.Name())
	defer func() { r.progress.end(err != nil) }()
	load := map[Kind]func(context.Context) error{
		Waiters:  r.waiters,
		Timeouts: r.timeouts,
		Churn:    r.churn,
		Idle:     r.idle,
		Takeover: r.takeovers,
	}[w.Kind]
	if load == nil {
		load = r.commands
	} else if change != nil {
		return nil, fmt.Errorf("%w: %s: a change needs a workload of commands", ErrWorkload, w.Kind)
	}
	if err := load(ctx); err != nil {
		return nil, err
	}
	// Nobody waits for a violation at the very end, so look for it.
	select {
	case <-g.failed:
		return nil, g.err
	default:
		for _, result := range r.results {
			result.Answered = r.operations()
		}
		return r.results, nil
	}
}

// runner measures one workload.
type runner struct {
	*generator
	workload *Workload
	prefix   string // of all keys
	progress *Progress
	change   *Change                     // nil for none
	beside   func(context.Context) error // nil for none
	results  []*Result
	result   *Result // the last of them
}

// begin begins another result.
func (r *runner) begin(server string) {
	r.result = &Result{Workload: *r.workload, Server: server, Kind: r.target.Kind, Loops: r.target.Loops, Started: time.Now()}
	r.results = append(r.results, r.result)
}

// commands measures the kinds whose connections all do the same: jobs of a few commands, one job after another.
func (r *runner) commands(ctx context.Context) error {
	w, d := r.workload, r.target.Dialect
	perJob := 2.0
	conns := r.add(w.Connections, nil)
	ownKeys(d, r.prefix, conns)
	var s script = pairScript{}
	switch w.Kind {
	case Contended:
		shared := newSharedScript(d, r.prefix, w, holdTimeout)
		shared.alone = r.target.others != nil // the own keys would have to be fetched into the daemons, which is another load
		s = shared
	case Groups:
		s = newGroupScript(newSharedScript(d, r.prefix, w, holdTimeout), conns)
	case Fresh:
		freshKeys(d, r.prefix, conns)
		s = freshScript{}
	case Mixed:
		s = newMixedScript(d, r.prefix, w)
		perJob = 1.9 // one job of ten is a single command
		if err := r.hold(ctx, d.lock(r.prefix+"held", holdTimeout)); err != nil {
			return err
		}
	case Pipelined:
		for _, c := range conns {
			c.lock = join(slices.Repeat([]exchange{c.lock, c.unlock}, w.Pairs)...)
		}
		perJob = float64(2 * w.Pairs)
		s = pipelineScript{commands: int64(2 * w.Pairs)}
	}
	for i, c := range conns {
		c.script = s
		c.cursor = i * choices / len(conns)
	}
	if err := r.connect(ctx, conns); err != nil {
		return err
	}
	stopPacing := r.start(conns, w.Rate/perJob)
	err := r.window(ctx, r.operations)
	if err == nil && r.change != nil {
		err = r.changed(ctx)
	}
	stopPacing()
	if err != nil {
		return err
	}
	return r.runDry(ctx)
}

// changed makes the change, and measures once more.
func (r *runner) changed(ctx context.Context) error {
	if err := r.change.Make(ctx); err != nil {
		return err
	}
	r.begin(r.change.Server)
	return r.measure(ctx, r.operations)
}

// hold locks keys on a separate connection, for the whole run.
func (r *runner) hold(ctx context.Context, lock exchange) error {
	holder := r.add(1, holdScript{})
	holder[0].lock = lock.only(granted)
	if err := r.connect(ctx, holder); err != nil {
		return err
	}
	return r.once(ctx, holder)
}

// window lets the load warm up and measures it.
func (r *runner) window(ctx context.Context, done func() int64) error {
	if err := r.wait(ctx, r.workload.Warmup, nil); err != nil {
		return err
	}
	return r.measure(ctx, done)
}

// measure measures the load for Workload.Window, or longer if done, which counts what is measured, has not changed by then.
func (r *runner) measure(ctx context.Context, done func() int64) error {
	r.onEach(func(l *loop) { l.latency.Reset() })
	allocated, err := r.allocated(ctx)
	if err != nil {
		return err
	}
	from, err := r.sample()
	if err != nil {
		return err
	}
	r.recording.Store(true)
	before := done()
	beside, end := r.runBeside(ctx)
	defer end()
	show := func() { r.progress.update(r.operations()) }
	if err := r.wait(ctx, r.workload.Window, show); err != nil {
		return err
	}
	select {
	case err := <-beside:
		if err != nil {
			return err
		}
	case <-r.failed:
		return r.err
	}
	for done() == before {
		if waited := time.Duration(r.now()) - from.at; waited > r.workload.Window+r.patience {
			return fmt.Errorf("bench: nothing was answered within %s", waited.Round(time.Millisecond))
		}
		if err := r.wait(ctx, time.Millisecond, show); err != nil {
			return err
		}
	}
	r.recording.Store(false)
	to, err := r.sample()
	if err != nil {
		return err
	}
	r.account(from, to, to.operations-from.operations)
	if r.target.allocated != nil && r.result.Operations > 0 {
		all, err := r.allocated(ctx)
		if err != nil {
			return err
		}
		each := float64(all-allocated) / float64(r.result.Operations)
		r.result.Allocations = &each
	}
	r.result.Elapsed = to.at - from.at
	r.result.Throughput = float64(r.result.Operations) / r.result.Elapsed.Seconds()
	r.result.Latency = NewLatency(r.merged(func(l *loop) *hdrhistogram.Histogram { return l.latency }))
	if r.target.PID != 0 {
		if r.result.Memory, err = r.target.residentMemory(); err != nil {
			return err
		}
	}
	return nil
}

// runBeside starts what runs beside the window. The channel has its error when it has ended; end ends it if it still runs.
func (r *runner) runBeside(ctx context.Context) (beside <-chan error, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	if r.beside == nil {
		done <- nil
		return done, cancel
	}
	var running sync.WaitGroup
	running.Go(func() { done <- r.beside(ctx) })
	return done, func() {
		cancel()
		running.Wait()
	}
}

// allocated returns the number of objects that the server has allocated, 0 if it does not report it.
func (r *runner) allocated(ctx context.Context) (int64, error) {
	if r.target.allocated == nil {
		return 0, nil
	}
	return r.target.allocated(ctx)
}

// account fills in the cost of the operations between two samples.
func (r *runner) account(from, to sample, operations int64) {
	r.result.Operations = operations
	r.result.GeneratorCPU = newCPU(to.generator-from.generator, operations)
	if r.target.PID != 0 {
		r.result.ServerCPU = newCPU(to.server-from.server, operations)
	}
}

// sample is a reading at one end of a window, or the difference of two.
type sample struct {
	at         time.Duration // since the generator was made
	operations int64
	server     time.Duration // processor time; 0 without a process
	generator  time.Duration // processor time
}

// add adds a difference.
func (s *sample) add(o sample) {
	s.at += o.at
	s.operations += o.operations
	s.server += o.server
	s.generator += o.generator
}

// spent runs f and returns what it cost: the difference of the samples before and after it.
func (r *runner) spent(f func() error) (cost sample, err error) {
	from, err := r.sample()
	if err != nil {
		return cost, err
	}
	if err := f(); err != nil {
		return cost, err
	}
	to, err := r.sample()
	return sample{
		at:         to.at - from.at,
		operations: to.operations - from.operations,
		server:     to.server - from.server,
		generator:  to.generator - from.generator,
	}, err
}

func (r *runner) sample() (s sample, err error) {
	var own unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &own); err != nil {
		return s, fmt.Errorf("own processor clock: %w", err)
	}
	s.generator = time.Duration(own.Nano())
	s.at = time.Duration(r.now())
	s.operations = r.operations()
	if r.target.PID != 0 {
		s.server, err = r.target.processorTime()
	}
	return s, err
}
