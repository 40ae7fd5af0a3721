package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/server/api"
)

const (
	// checkTime is the time from one look at how etcd is run to the next.
	checkTime = 30 * time.Second
	// compactTime is how old history may be. etcd compacts what is older than its retention, 5 minutes, once in that time.
	compactTime = 15 * time.Minute
	// manyRevisions is a history that should have been compacted once.
	manyRevisions = 10_000
)

// health looks after how etcd is run.
type health struct {
	store *Store

	compactTime   time.Duration // [compactTime]
	manyRevisions int64         // [manyRevisions]

	// Of the goroutine that checks.
	others map[string]*endpoint // members that are not among the endpoints, by URL
	mark   int64                // a revision that should be compacted when compactTime has passed
	marked time.Time
	kept   int64 // a revision that should have been compacted, and was not; 0 for none

	mu       sync.Mutex
	members  []api.StoreMember
	warnings []string
}

func newHealth(s *Store) *health {
	return &health{store: s, compactTime: compactTime, manyRevisions: manyRevisions, others: make(map[string]*endpoint)}
}

// run checks until ctx is done.
func (h *health) run(ctx context.Context) {
	defer func() {
		for _, p := range h.others {
			p.close()
		}
	}()
	for {
		h.check(ctx)
		if !pause(ctx, checkTime) {
			return
		}
	}
}

// answer is what a member says of itself.
type answer struct {
	url    string
	status *clientv3.StatusResponse // nil if there is an error
	err    error
}

// ask asks members at the same time.
func (h *health) ask(ctx context.Context, all []*endpoint) []answer {
	answers := make([]answer, len(all))
	var asked sync.WaitGroup
	for i, p := range all {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, callTime)
			defer cancel()
			a := &answers[i]
			a.url = p.url
			client, err := p.get()
			if err == nil {
				a.status, err = client.Status(ctx, p.url)
			}
			a.err = err
		})
	}
	asked.Wait()
	return answers
}

// demand returns why etcd cannot be trusted with locks, nil if it can.
func (h *health) demand(ctx context.Context) error {
	var last error
	var first *answer
	for _, a := range h.ask(ctx, h.store.endpoints.all) {
		switch {
		case a.err != nil:
			last = a.err
		case isTooOld(a.status.Version):
			return errors.New(tooOld(&a))
		case first == nil:
			first = &a
		case first.status.Header.ClusterId != a.status.Header.ClusterId:
			return fmt.Errorf("%s and %s are members of two clusters of etcd: --fleet wants those of one", first.url, a.url)
		}
	}
	if first == nil {
		return h.store.cannot("ask for the version", last)
	}
	return nil
}

// isTooOld reports whether a version of etcd may end leases that were renewed, or renew those that have ended.
func isTooOld(version string) bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n != 3 || major != 3 {
		return true
	}
	return minor < 5 || minor == 5 && patch < 23 || minor == 6 && patch < 5
}

func tooOld(a *answer) string {
	return fmt.Sprintf("etcd at %s is version %s, which does not keep leases reliably: want 3.5.23 or later, or 3.6.5 or later",
		a.url, a.status.Version)
}

// check looks at all members, and takes note of what is wrong.
func (h *health) check(ctx context.Context) {
	endpoints := h.store.endpoints
	answers := h.ask(ctx, endpoints.all)
	for i, a := range answers {
		if p := endpoints.all[i]; a.err == nil || isAnswer(a.err) {
			p.answered()
		} else if ctx.Err() == nil {
			endpoints.failed(p, a.err)
		}
	}
	answers = append(answers, h.ask(ctx, h.otherMembers(ctx, answers))...)
	alarms := h.alarms(ctx)
	if ctx.Err() != nil {
		return
	}
	var members []api.StoreMember
	var warnings []string
	for _, a := range answers {
		members = append(members, shownMember(&a, alarms))
		if a.err == nil {
			warnings = append(warnings, memberWarnings(&a, alarms)...)
		}
	}
	if h.keepsHistory(ctx) {
		warnings = append(warnings, "etcd does not compact its history, so its database becomes full: "+
			"run it with --auto-compaction-mode=periodic --auto-compaction-retention=5m")
	}
	h.note(members, warnings)
}

// note takes note of what was found, and logs warnings that are new.
func (h *health) note(members []api.StoreMember, warnings []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, text := range warnings {
		if !slices.Contains(h.warnings, text) {
			h.store.cfg.Log.Warn().Msg(text)
		}
	}
	h.members, h.warnings = members, warnings
}

// otherMembers returns the members of the cluster that are not among the endpoints.
func (h *health) otherMembers(ctx context.Context, answers []answer) (all []*endpoint) {
	var list *clientv3.MemberListResponse
	err := h.store.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		list, err = client.MemberList(ctx)
		return err
	})
	if err != nil {
		return nil
	}
	for _, m := range list.Members {
		known := slices.ContainsFunc(answers, func(a answer) bool {
			return a.err == nil && a.status.Header.MemberId == m.ID || slices.Contains(m.ClientURLs, a.url)
		})
		if known || len(m.ClientURLs) == 0 {
			continue
		}
		url := m.ClientURLs[0]
		if h.others[url] == nil {
			h.others[url] = h.store.endpoints.another(url)
		}
		all = append(all, h.others[url])
	}
	return all
}

// alarms returns the alarms of all members, by member.
func (h *health) alarms(ctx context.Context) map[uint64][]string {
	all := make(map[uint64][]string)
	_ = h.store.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) error { // what cannot be asked is not shown
		answer, err := client.AlarmList(ctx)
		if err == nil {
			for _, a := range answer.Alarms {
				all[a.MemberID] = append(all[a.MemberID], a.Alarm.String())
			}
		}
		return err
	})
	return all
}

// shownMember returns what is shown of a member.
func shownMember(a *answer, alarms map[uint64][]string) api.StoreMember {
	m := api.StoreMember{Endpoint: a.url}
	if a.err != nil {
		m.Error = reason(a.err)
		return m
	}
	m.Reachable = true
	m.Version = a.status.Version
	m.Leader = a.status.Leader == a.status.Header.MemberId
	m.SizeBytes, m.QuotaBytes = a.status.DbSize, a.status.DbSizeQuota
	m.Alarms = alarms[a.status.Header.MemberId]
	return m
}

// memberWarnings says what is wrong with a member.
func memberWarnings(a *answer, alarms map[uint64][]string) (all []string) {
	if isTooOld(a.status.Version) {
		all = append(all, tooOld(a))
	}
	if q := a.status.DbSizeQuota; q > 0 && a.status.DbSize > q/10*8 {
		all = append(all, "the database of etcd at "+a.url+" is nearly full; then no key goes to another daemon: compact and defragment it, "+
			"or raise --quota-backend-bytes")
	}
	for _, alarm := range alarms[a.status.Header.MemberId] {
		text := "etcd at " + a.url + " has raised the alarm " + alarm
		if alarm == etcdserverpb.AlarmType_NOSPACE.String() {
			text += ": compact and defragment its database, then disarm the alarm"
		}
		all = append(all, text)
	}
	return all
}

// keepsHistory reports whether etcd does not compact its history, as far as that can be seen.
func (h *health) keepsHistory(ctx context.Context) bool {
	now, err := h.revisionIs(ctx, 0)
	if err != nil {
		return h.kept > 0
	}
	if _, err := h.revisionIs(ctx, h.kept); errors.Is(err, rpctypes.ErrCompacted) {
		h.kept = 0
	}
	switch {
	case h.mark == 0 && now > h.manyRevisions: // was it ever compacted?
		h.suspect(ctx, 1)
	case h.mark > 0 && time.Since(h.marked) < h.compactTime:
		return h.kept > 0
	case h.mark > 0 && now-h.mark > h.manyRevisions/10:
		h.suspect(ctx, h.mark)
	}
	h.mark, h.marked = now, time.Now()
	return h.kept > 0
}

// suspect looks whether a revision is there that should have been compacted.
func (h *health) suspect(ctx context.Context, revision int64) {
	if _, err := h.revisionIs(ctx, revision); err == nil {
		h.kept = revision
	}
}

// revisionIs returns the revision of etcd, and an error if another one cannot be read any more: 0 for the present one.
func (h *health) revisionIs(ctx context.Context, revision int64) (now int64, err error) {
	err = h.store.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.Get(ctx, h.store.names.space, clientv3.WithCountOnly(), clientv3.WithRev(revision))
		if err == nil {
			now = answer.Header.Revision
		}
		return err
	})
	return now, err
}
