package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"dreadlock/bench/flame"
)

// perfRate is the number of samples that perf takes in a second of processor time: none that others have, so as not to run in step
// with them.
const perfRate = 997

// Profiled makes a daemon serve the profiles that [Profile] fetches. Its error wraps [ErrTarget] or [ErrWorkload] if there can be none of
// that server or workload.
func Profiled(p Peer, w *Workload) (Peer, error) {
	if w.Kind == Waiters || w.Kind == Idle || w.Kind == Takeover {
		return p, fmt.Errorf("%w: %s: it has no window in which the load is the same all the time", ErrWorkload, w.Kind)
	}
	if p.Kind != Daemon || p.Target != nil {
		return p, fmt.Errorf("%w: %s: only a daemon that is started here can be profiled", ErrTarget, p.Name())
	}
	p.Variant = &Variant{Name: Daemon, Options: []string{"--pprof"}}
	return p, nil
}

// Profile measures one workload on a daemon of [Profiled], and takes a profile of the daemon's processor time in the window, which
// lasts for whole seconds. With perf the profile shows what the kernel does in system calls; without, which ones they are.
func Profile(ctx context.Context, target *Target, w Workload, o Options, perf bool) (*Result, *flame.Profile, error) {
	w.Window = max((w.Window + time.Second - 1).Truncate(time.Second), time.Second)
	var profiler interface {
		record(ctx context.Context, window time.Duration) error
		read(ctx context.Context) (*flame.Profile, error)
	} = &pprofProfiler{admin: target.admin}
	if perf {
		dir, err := os.MkdirTemp("", "dreadlock-perf-")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // there is nothing to be done about it
		profiler = &perfProfiler{pid: target.PID, file: filepath.Join(dir, "perf.data")}
	}
	o.beside = func(ctx context.Context) error { return profiler.record(ctx, w.Window) }
	result, err := Run(ctx, target, w, o)
	if err != nil {
		return nil, nil, err
	}
	p, err := profiler.read(ctx) // which takes processor time
	return result, p, err
}

// pprofProfiler has the daemon make the profile.
type pprofProfiler struct {
	admin   string // host:port of the admin interface
	profile []byte
}

func (p *pprofProfiler) record(ctx context.Context, window time.Duration) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.admin, int(window.Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := adminClient.Do(request)
	if err != nil {
		return fmt.Errorf("fetch a profile: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch a profile: %s: %s", url, response.Status)
	}
	p.profile, err = io.ReadAll(response.Body)
	return err
}

func (p *pprofProfiler) read(context.Context) (*flame.Profile, error) {
	return flame.ReadPprof(bytes.NewReader(p.profile))
}

// perfProfiler records the daemon with perf.
type perfProfiler struct {
	pid  int
	file string // of the recording
}

func (p *perfProfiler) record(ctx context.Context, window time.Duration) error {
	program, err := installed("perf")
	if err != nil {
		return err
	}
	seconds := strconv.FormatFloat(window.Seconds(), 'f', -1, 64)
	record := exec.CommandContext(ctx, program, "record", "-q", "-e", "cpu-clock", "-F", strconv.Itoa(perfRate), "-g",
		"-p", strconv.Itoa(p.pid), "-o", p.file, "--", "sleep", seconds)
	if said, err := record.CombinedOutput(); err != nil {
		return fmt.Errorf("perf record: %w: %s; as root it may do so, or with kernel.perf_event_paranoid=1", err, bytes.TrimSpace(said))
	}
	return nil
}

func (p *perfProfiler) read(ctx context.Context) (*flame.Profile, error) {
	text, err := exec.CommandContext(ctx, "perf", "script", "-i", p.file, "-F", "ip,sym", "--no-inline").Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(failed.Stderr))
		}
		return nil, fmt.Errorf("perf script: %w", err)
	}
	return flame.ReadPerf(bytes.NewReader(text), perfRate)
}
