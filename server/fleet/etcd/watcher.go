package etcd

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// listPage is the number of entries that are read at a time.
const listPage = 2000

type (
	clientKV    = mvccpb.KeyValue
	clientEvent = mvccpb.Event
)

// errCompacted says that the history from which to watch on is gone.
var errCompacted = errors.New("the history was compacted that it would need")

// watcher lists all that the fleet has, and then watches it: the session is shown all of it, in order. It uses the watch of etcd's protocol
// and not that of the client, which begins a broken watch anew without a word, at the same endpoint.
type watcher struct {
	session  *session
	endpoint int   // index of the one to watch at
	next     int64 // revision from which to watch; 0 if all has to be listed first
	said     complaint

	mu     sync.Mutex
	at     *endpoint               // where the watch stands
	cancel context.CancelCauseFunc // ends the watch that stands; nil if there is none
	since  time.Time               // it stands
	relist bool                    // all has to be listed before the next watch
}

// again has all listed, and the watch begun anew at the next endpoint. Safe from any goroutine.
func (w *watcher) again(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.relist = true
	if w.cancel != nil {
		w.cancel(cause)
		w.cancel = nil
	}
}

// avoid has the watch begun anew if it stands at an endpoint that does not answer, and there is one that does. Safe from any goroutine.
func (w *watcher) avoid() {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.session.store.endpoints.all
	if w.cancel != nil && w.at.failing.Load() && slices.ContainsFunc(all, func(p *endpoint) bool { return !p.failing.Load() }) {
		w.cancel(errors.New("etcd does not answer here"))
		w.cancel = nil
	}
}

// mustList reports whether all has to be listed, and forgets that it was asked for.
func (w *watcher) mustList() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	must := w.relist || w.next == 0
	w.relist = false
	return must
}

// needsList reports whether all has to be listed before the next watch. It must not run.
func (w *watcher) needsList() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.relist || w.next == 0
}

// stands returns for how long the watch stands. Safe from any goroutine.
func (w *watcher) stands() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel == nil {
		return 0
	}
	return time.Since(w.since)
}

// run watches until ctx is done.
func (w *watcher) run(ctx context.Context) {
	store := w.session.store
	w.endpoint = int(store.endpoints.current.Load()) % len(store.endpoints.all)
	for failures := 0; ctx.Err() == nil; {
		if w.mustList() && !w.list(ctx) {
			w.next = 0
			if !pause(ctx, restTime) {
				return
			}
			continue
		}
		p := store.endpoints.all[w.endpoint]
		stood, err := w.watch(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errCompacted) {
			w.next = 0
		}
		store.counters.watchRestarts.Add(1)
		if w.said.isNews(reason(err)) || stood {
			w.session.log.Warn().Str("endpoint", p.url).Str("reason", reason(err)).Msg("the watch of etcd is begun anew")
		}
		w.endpoint = store.endpoints.next(w.endpoint)
		if stood {
			failures = 0
		}
		if failures++; failures%len(store.endpoints.all) == 0 && !pause(ctx, restTime) {
			return
		}
	}
}

// list shows the session all that there is, and reports whether it could.
func (w *watcher) list(ctx context.Context) bool {
	store := w.session.store
	kvs, revision, err := store.list(ctx)
	if err != nil {
		if ctx.Err() == nil && w.said.isNews(reason(err)) {
			w.session.log.Warn().Str("reason", reason(err)).Msg("the places of the fleet cannot be read from etcd: trying again")
		}
		return false
	}
	store.counters.lists.Add(1)
	w.next = revision + 1
	return w.show(ctx, shown{listed: true, list: kvs, revision: revision})
}

// list reads all that the fleet has, as it is at one revision.
func (s *Store) list(ctx context.Context) (kvs []*clientKV, revision int64, err error) {
	from, end := s.names.all, clientv3.GetPrefixRangeEnd(s.names.all)
	for {
		var answer *clientv3.GetResponse
		err := s.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
			answer, err = client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(revision))
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		kvs = append(kvs, answer.Kvs...)
		if revision == 0 {
			revision = answer.Header.Revision
		}
		if !answer.More {
			return kvs, revision, nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// show gives something to the session, and reports whether it took it.
func (w *watcher) show(ctx context.Context, s shown) bool {
	select {
	case w.session.shown <- s:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch watches at an endpoint until something is wrong, and returns that, and whether the watch stood for a while.
func (w *watcher) watch(ctx context.Context, p *endpoint) (stood bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(callTime, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	stream, err := w.open(ctx, p)
	for err == nil {
		var answer *etcdserverpb.WatchResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		switch {
		case answer.CompactRevision > 0:
			return stood, errCompacted
		case answer.Canceled:
			return stood, errors.New(answer.CancelReason)
		case answer.Created:
			late.Stop()
			stood = true
			p.answered()
			w.stand(p, cancel)
			defer w.stand(p, nil)
		}
		if n := len(answer.Events); n > 0 {
			revision := answer.Events[n-1].Kv.ModRevision
			if !w.show(ctx, shown{events: answer.Events, revision: revision}) {
				break
			}
			w.next = max(w.next, revision+1)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return stood, err
}

// open asks an endpoint for what comes next. Without a leader it says so, and does not leave the watch without news.
func (w *watcher) open(ctx context.Context, p *endpoint) (etcdserverpb.Watch_WatchClient, error) {
	client, err := p.get()
	if err != nil {
		return nil, err
	}
	conn := client.ActiveConnection()
	stream, err := etcdserverpb.NewWatchClient(conn).Watch(clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	all := w.session.store.names.all
	return stream, stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
		CreateRequest: &etcdserverpb.WatchCreateRequest{
			Key: []byte(all), RangeEnd: slices.Clone([]byte(clientv3.GetPrefixRangeEnd(all))), StartRevision: w.next,
		},
	}})
}

// stand says that a watch stands at an endpoint, and what ends it; nil says that it does not.
func (w *watcher) stand(p *endpoint, cancel context.CancelCauseFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.cancel, w.since = p, cancel, time.Now()
}
