package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/grpclog"

	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

const (
	// retryTime is the pause after a session that could not be begun; it doubles up to maxRetryTime.
	retryTime    = 100 * time.Millisecond
	maxRetryTime = 2 * time.Second
)

// gRPC writes to stderr, unless it is told not to before it is used, what its callers say better.
func init() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

// Store is a store of a fleet on etcd: see [fleet.Store].
type Store struct {
	cfg       Config
	names     names
	endpoints *endpoints
	health    *health
	counters  counters
	space     atomic.Uint64
	said      complaint // by Run

	inherited *session // that Run begins with; nil for a new one

	mu         sync.Mutex
	suspension *suspension             // nil unless a takeover is under way
	interrupt  context.CancelCauseFunc // ends what Run does
	session    *session                // nil without one
	reason     string                  // why there is none
	since      time.Time
	lost       map[string]uint64
	// revision is the greatest that was seen, in all sessions.
	revision int64
}

// counters count since the store was made. Safe from any goroutine.
type counters struct {
	transactions, operations, repeats, watchRestarts, lists atomic.Uint64
}

var _ fleet.Store = (*Store)(nil)

// New returns a store that asks nobody before it runs. The error wraps [ErrOption].
func New(cfg Config) (*Store, error) {
	cfg.Endpoints = slices.Clone(cfg.Endpoints)
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOption, err)
	}
	s := &Store{cfg: cfg, names: newNames(cfg.Prefix), reason: "it has not begun", since: time.Now(), lost: make(map[string]uint64)}
	var err error
	if s.endpoints, err = newEndpoints(&s.cfg); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOption, err)
	}
	s.health = newHealth(s)
	return s, nil
}

// Space returns the number of the lock space: see [fleet.Store].
func (s *Store) Space() uint64 { return s.space.Load() }

// Run keeps the member in touch with etcd: see [fleet.Store].
func (s *Store) Run(ctx context.Context, m fleet.Member) {
	defer s.endpoints.close()
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	helpers.Go(func() { s.health.run(ctx) })
	se := s.inherited
	if se != nil {
		se.log.Info().Stringer("ttl", se.ttl).Stringer("left", se.left()).Msg("goes on as a daemon of its fleet, with the lease of before")
	}
	for wait := retryTime; ; {
		if p := s.suspended(); p != nil {
			if p.stand(se) {
				return
			}
			continue
		}
		if ctx.Err() != nil && se == nil {
			return
		}
		turn, end := s.turn(ctx)
		if se == nil {
			se = s.tryToBegin(turn, m, &wait)
		} else if s.serve(turn, m, se) {
			if se.found {
				wait = retryTime
			}
			se = nil
		}
		end()
	}
}

// tryToBegin begins a session. If it cannot, it pauses for some time, and for longer the next time.
func (s *Store) tryToBegin(ctx context.Context, m fleet.Member, wait *time.Duration) *session {
	se, err := s.begin(ctx, m.Rest())
	if err != nil {
		s.failed(ctx, err)
		pause(ctx, *wait/2+rand.N(*wait/2+1))
		*wait = min(2**wait, maxRetryTime)
		return nil
	}
	return se
}

// serve serves a session, and reports whether it has ended; otherwise it is suspended.
func (s *Store) serve(ctx context.Context, m fleet.Member, se *session) (ended bool) {
	cause, rests := se.run(ctx, m)
	switch {
	case cause == nil:
		return false
	case se.found:
		s.ended(se, cause)
	default:
		s.failed(ctx, cause)
	}
	if !rests {
		s.revoke(context.WithoutCancel(ctx), se.lease)
	}
	return true
}

// begin gets a lease, if etcd can be trusted. It lasts for longer by the time that keys rest.
func (s *Store) begin(ctx context.Context, rest time.Duration) (*session, error) {
	if err := s.health.demand(ctx); err != nil {
		return nil, err
	}
	var grant *clientv3.LeaseGrantResponse
	var sent time.Duration
	rest = (rest + time.Second - 1).Truncate(time.Second)
	err := s.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		sent = fleet.Now()
		grant, err = client.Grant(ctx, int64((s.cfg.TTL+rest)/time.Second))
		return err
	})
	if err != nil {
		return nil, s.cannot("get a lease", err)
	}
	if err := s.findSpace(ctx); err != nil {
		s.revoke(ctx, int64(grant.ID))
		return nil, s.cannot("agree on the lock space", err)
	}
	s.mu.Lock()
	if before := s.revision; grant.Revision < before {
		s.cfg.Log.Error().Int64("before", before).Int64("now", grant.Revision).
			Msg("the revisions of etcd have gone back: fencing tokens are given again. Restore snapshots with --bump-revision")
	}
	s.mu.Unlock()
	return newSession(s, grant, sent, rest), nil
}

// cannot says what could not be done, and why.
func (s *Store) cannot(what string, err error) error {
	switch {
	case isAnswer(err) && errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("cannot %s: the database of etcd is full: compact and defragment it, and disarm the alarm", what)
	case isAnswer(err):
		return fmt.Errorf("cannot %s: etcd says: %s", what, reason(err))
	}
	return fmt.Errorf("cannot reach etcd at %s: %s", strings.Join(s.cfg.Endpoints, ", "), reason(err))
}

// findSpace finds the number of the lock space. The first daemon of the fleet writes it.
func (s *Store) findSpace(ctx context.Context) error {
	mine := rand.Uint64() | 1
	var text string
	err := s.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(s.names.space), "=", 0)).
			Then(clientv3.OpPut(s.names.space, spaceText(mine)), clientv3.OpGet(s.names.space)).
			Else(clientv3.OpGet(s.names.space)).
			Commit()
		if err == nil {
			text = string(answer.Responses[len(answer.Responses)-1].GetResponseRange().Kvs[0].Value)
		}
		return err
	})
	if err != nil {
		return err
	}
	space, ok := parseSpace(text)
	if !ok {
		return fmt.Errorf("%s in etcd is %q, which no daemon has written", s.names.space, text)
	}
	if before := s.space.Swap(space); before != 0 && before != space {
		s.cfg.Log.Error().Str("before", spaceText(before)).Str("now", spaceText(space)).
			Msg("etcd has another lock space than before: it has lost what it had, or is another etcd")
	}
	return nil
}

// begun takes note of a session, once everything was listed.
func (s *Store) begun(se *session) {
	s.mu.Lock()
	s.session, s.reason, s.since = se, "", se.began
	s.mu.Unlock()
	se.log.Info().Strs("etcd", s.cfg.Endpoints).Str("prefix", s.cfg.Prefix).Str("space", spaceText(s.Space())).Stringer("ttl", se.ttl).
		Msg("in touch with the fleet")
}

// failed takes note of a session that could not be begun. The log says so once, and now and then.
func (s *Store) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.reason = err.Error()
	s.mu.Unlock()
	if s.said.isNews(err.Error()) {
		s.cfg.Log.Warn().Msg(err.Error() + ": trying again")
	}
}

// ended takes note of a session that is lost.
func (s *Store) ended(se *session, cause *endError) {
	s.mu.Lock()
	s.session, s.reason, s.since = nil, cause.text, time.Now()
	s.lost[cause.reason]++
	se.mu.Lock()
	s.revision = max(s.revision, se.view.revision)
	se.mu.Unlock()
	s.mu.Unlock()
	if cause.reason == api.LostStopped {
		se.log.Info().Msg("the daemon leaves the fleet")
		return
	}
	se.log.Error().Str("reason", cause.text).
		Msg("lost touch with the fleet: the clients that held a key or waited for one were dropped")
}

// revoke ends a lease, and with it its places. If that fails, they go when the lease expires.
func (s *Store) revoke(ctx context.Context, lease int64) {
	err := s.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Revoke(ctx, clientv3.LeaseID(lease))
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.cfg.Log.Warn().Str("lease", leaseText(lease)).Str("reason", reason(err)).
			Msg("the lease could not be ended: what this daemon held is free for the others when it expires")
	}
}
