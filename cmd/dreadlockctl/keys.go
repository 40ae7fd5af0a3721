package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"dreadlock/proto"
	"dreadlock/server/api"
)

// locksCommand lists held keys.
type locksCommand struct {
	Prefix   string `arg:"" optional:"" help:"Only keys that begin with it."`
	Contains string `placeholder:"TEXT" help:"Only keys that contain TEXT."`
	Client   string `placeholder:"TEXT" help:"Only keys of holders whose name, address, identity or owner contains TEXT."`
	Sort     string `default:"key" enum:"key,waiters,age,wait" placeholder:"ORDER" help:"key: by name; waiters: the longest queue first; age: held longest first; wait: the longest wait first (${default})."`
	listOptions
	jsonOption
}

// Help has examples.
func (*locksCommand) Help() string {
	return `Examples:

  dreadlockctl locks                        all held keys, by name
  dreadlockctl locks backup                 keys that begin with backup
  dreadlockctl locks --client ann@          what clients hold whose names contain ann@
  dreadlockctl locks --sort wait --limit 5  the five keys with the longest waits
  dreadlockctl locks --all --json | jq -r '.keys[].key'

With dreadlock --lock-delay a key whose holder's connection has ended is listed with its last holder until it is free.`
}

// Run lists keys.
func (c *locksCommand) Run(ctx context.Context, s *streams, g *globals) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	keys, err := collect(limit, func(limit int, cursor string) (page[api.Key], error) {
		return a.keys(ctx, &api.KeyQuery{
			Prefix: c.Prefix, Contains: c.Contains, Client: c.Client, Order: api.KeyOrder(c.Sort), Limit: limit, Cursor: cursor,
		})
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, api.KeyPage{Keys: keys.entries, Matching: keys.matching, Next: keys.next})
	}
	if len(keys.entries) == 0 {
		text := "no keys are held"
		switch {
		case c.Contains != "" || c.Client != "":
			text = "no held keys match"
		case c.Prefix != "":
			text = "no held key begins with " + c.Prefix
		}
		_, err := fmt.Fprintln(s.stdout, text)
		return err
	}
	return writeKeys(s.stdout, &keys)
}

// keys requests a page of keys.
func (a *admin) keys(ctx context.Context, q *api.KeyQuery) (page[api.Key], error) {
	query := url.Values{"order": {string(q.Order)}, "limit": {strconv.Itoa(q.Limit)}}
	setGiven(query, map[string]string{"prefix": q.Prefix, "contains": q.Contains, "client": q.Client, "cursor": q.Cursor})
	var p api.KeyPage
	err := a.get(ctx, &p, query, "keys")
	return page[api.Key]{p.Keys, p.Matching, p.Next}, err
}

// setGiven sets the parameters that are not empty.
func setGiven(query url.Values, parameters map[string]string) {
	for name, value := range parameters {
		if value != "" {
			query.Set(name, value)
		}
	}
}

func writeKeys(w io.Writer, keys *page[api.Key]) error {
	holder := func(k *api.Key) *api.Peer { return &k.Holder }
	t := newPeerTable(w, keys.entries, holder, "KEY", "HELD", "CONN", "HOLDER", "WAITERS", "LONGEST WAIT")
	for i := range keys.entries {
		k := &keys.entries[i]
		wait := "-"
		if k.Waiters > 0 {
			wait = span(k.LongestWaitSeconds)
		}
		t.peerRow(&k.Holder, cell(k.Key, maxCell), held(k), connectionCell(k.Holder.Connection), clientCell(&k.Holder), count(k.Waiters), wait)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return keys.writeRest(w, "key")
}

// held says how long a key has been held, or when it is free if its holder's connection has ended. Of a key that is at another daemon
// that one knows.
func held(k *api.Key) string {
	switch {
	case k.FreesInSeconds > 0:
		return freesIn(k)
	case k.Holder.Daemon != "":
		return "-"
	}
	return span(k.HeldSeconds)
}

// freesIn says when a key is free whose holder's connection has ended.
func freesIn(k *api.Key) string { return "free in " + span(k.FreesInSeconds) }

// waitersCommand shows a key and its queue.
type waitersCommand struct {
	Key   string `arg:"" help:"The key."`
	Limit int    `default:"${default_limit}" placeholder:"N" help:"Show at most N waiters, 1 to 1000 (${default})."`
	jsonOption
}

// Help has examples.
func (*waitersCommand) Help() string {
	return `Examples:

  dreadlockctl waiters nightly
  dreadlockctl waiters nightly --json | jq .holder

The queue is served from the top: the first waiter gets the key when its holder releases it. The exit status is 1 if
nobody holds the key.`
}

// Run shows the key.
func (c *waitersCommand) Run(ctx context.Context, s *streams, g *globals) error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if c.Limit < 1 || c.Limit > api.MaxLimit {
		return badOption("--limit %d: want 1 to %d", c.Limit, api.MaxLimit)
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	var key api.Key
	err = a.get(ctx, &key, url.Values{"queue": {strconv.Itoa(c.Limit)}}, "keys", c.Key)
	if errors.Is(err, errNotFound) {
		return failed(exitFailed, "nobody holds the key %s, and nobody waits for it", cell(c.Key, maxCell))
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, key)
	}
	return writeWaiters(s.stdout, &key)
}

// checkKey returns an error for an invalid key.
func checkKey(key string) error {
	switch err := proto.ValidKey(key); {
	case err == nil:
		return nil
	case errors.Is(err, proto.ErrKeyTooLong):
		return badOption("the key has %s characters, want at most %s", count(len(key)), count(proto.MaxKey))
	default:
		return badOption("invalid key %q: want letters and digits only, like nightly or host7backup", key)
	}
}

func writeWaiters(w io.Writer, k *api.Key) error {
	key := cell(k.Key, maxCell)
	text := fmt.Sprintf("%s is held by connection %s for %s\n", key, who(&k.Holder), span(k.HeldSeconds))
	switch {
	case k.Holder.Daemon != "":
		text = fmt.Sprintf("%s is at another daemon of the fleet, %s: ask there who holds it\n", key, whereDaemon(&k.Holder))
	case k.FreesInSeconds > 0 && k.Holder.Connection == 0:
		text = fmt.Sprintf("%s may have been held before the daemon started: it is %s\n", key, freesIn(k))
	case k.FreesInSeconds > 0:
		text = fmt.Sprintf("%s was held by connection %s for %s, which has ended: it is %s\n", key, who(&k.Holder), span(k.HeldSeconds), freesIn(k))
	}
	if k.Token != 0 && k.Holder.Daemon == "" { // older daemons have none, and another daemon knows that of its client
		text += fmt.Sprintf("fencing token %d\n", k.Token)
	}
	if k.Waiters == 0 {
		text += "nobody waits for it"
	}
	if _, err := fmt.Fprintln(w, text); err != nil || k.Waiters == 0 {
		return err
	}
	waiter := func(q *api.Waiter) *api.Peer { return &q.Peer }
	t := newPeerTable(w, k.Queue, waiter, "PLACE", "CONN", "WAITER", "WAITED", "GIVES UP AFTER")
	for i := range k.Queue {
		q := &k.Queue[i]
		gives := timeout(q.TimeoutSeconds)
		if q.Daemon != "" { // its clients have one each
			gives = "-"
		}
		t.peerRow(&q.Peer, count(i+1), connectionCell(q.Connection), clientCell(&q.Peer), span(q.WaitedSeconds), gives)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(k.Queue) == k.Waiters {
		return nil
	}
	_, err := fmt.Fprintf(w, "%s of %s; --limit %d shows more\n",
		count(len(k.Queue)), some(k.Waiters, "waiter"), min(k.Waiters, api.MaxLimit))
	return err
}
