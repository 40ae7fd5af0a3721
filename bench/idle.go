package bench

import (
	"context"
	"time"
)

// settleTime passes between the last lock and the measurement.
const settleTime = 200 * time.Millisecond

// idle measures Idle. The server should be fresh: memory that it freed earlier is used again and does not show.
func (r *runner) idle(ctx context.Context) error {
	result := &IdleResult{}
	var err error
	if result.Before, err = r.target.residentMemory(); err != nil {
		return err
	}
	conns := r.add(r.workload.Connections, holdScript{})
	ownKeys(r.target.Dialect, r.prefix, conns)
	from, err := r.sample()
	if err != nil {
		return err
	}
	if err := r.connect(ctx, conns); err != nil {
		return err
	}
	if err := r.once(ctx, conns); err != nil {
		return err
	}
	to, err := r.sample()
	if err != nil {
		return err
	}
	r.account(from, to, int64(len(conns)))
	r.result.Elapsed = to.at - from.at
	r.result.Throughput = float64(len(conns)) / r.result.Elapsed.Seconds()
	if err := r.wait(ctx, settleTime, nil); err != nil {
		return err
	}
	if from, err = r.sample(); err != nil {
		return err
	}
	if err := r.wait(ctx, r.workload.Window, nil); err != nil {
		return err
	}
	if to, err = r.sample(); err != nil {
		return err
	}
	result.CPUShare = (to.server - from.server).Seconds() / (to.at - from.at).Seconds()
	if result.After, err = r.target.residentMemory(); err != nil {
		return err
	}
	result.PerConnection = float64(result.After-result.Before) / float64(len(conns))
	r.result.Memory = result.After
	r.result.Idle = result
	return nil
}
