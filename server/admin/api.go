package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// sourceTime is the time that the server has to answer a request.
const sourceTime = 5 * time.Second

// endpoints answer in JSON. Package api defines the answers.
type endpoints struct {
	source  Source
	log     zerolog.Logger
	streams *streams
}

func (a *endpoints) status(w http.ResponseWriter, r *http.Request) {
	answer(a, w, r, nil, func(ctx context.Context, _ *query) (*api.Status, error) {
		return a.source.Status(ctx)
	})
}

func (a *endpoints) keys(w http.ResponseWriter, r *http.Request) {
	parameters := []string{"prefix", "contains", "client", "order", "limit", "cursor"}
	answer(a, w, r, parameters, func(ctx context.Context, q *query) (*api.KeyPage, error) {
		keys := api.KeyQuery{
			Prefix:   q.text("prefix"),
			Contains: q.text("contains"),
			Client:   q.text("client"),
			Order:    api.KeyOrder(q.text("order")),
			Limit:    q.number("limit", api.DefaultLimit, 1),
			Cursor:   q.text("cursor"),
		}
		if q.err != nil {
			return nil, q.err
		}
		return a.source.Keys(ctx, keys)
	})
}

func (a *endpoints) key(w http.ResponseWriter, r *http.Request) {
	answer(a, w, r, []string{"queue"}, func(ctx context.Context, q *query) (*api.Key, error) {
		queue := q.number("queue", api.DefaultLimit, 0)
		if q.err != nil {
			return nil, q.err
		}
		return a.source.Key(ctx, r.PathValue("key"), queue)
	})
}

func (a *endpoints) connections(w http.ResponseWriter, r *http.Request) {
	parameters := []string{"address", "client", "holding", "waiting", "order", "limit", "cursor"}
	answer(a, w, r, parameters, func(ctx context.Context, q *query) (*api.ConnectionPage, error) {
		connections := api.ConnectionQuery{
			Address: q.text("address"),
			Client:  q.text("client"),
			Holding: q.flag("holding"),
			Waiting: q.flag("waiting"),
			Order:   api.ConnectionOrder(q.text("order")),
			Limit:   q.number("limit", api.DefaultLimit, 1),
			Cursor:  q.text("cursor"),
		}
		if q.err != nil {
			return nil, q.err
		}
		return a.source.Connections(ctx, connections)
	})
}

func (a *endpoints) connection(w http.ResponseWriter, r *http.Request) {
	answer(a, w, r, nil, func(ctx context.Context, _ *query) (*api.Connection, error) {
		id, err := connectionID(r)
		if err != nil {
			return nil, err
		}
		return a.source.Connection(ctx, id)
	})
}

func (a *endpoints) deadlocks(w http.ResponseWriter, r *http.Request) {
	answer(a, w, r, nil, func(ctx context.Context, _ *query) (*api.Deadlocks, error) {
		return a.source.Deadlocks(ctx)
	})
}

// kicked is the answer to a kick.
type kicked struct {
	Kicked api.ConnectionID `json:"kicked"`
}

func (a *endpoints) kick(w http.ResponseWriter, r *http.Request) {
	answer(a, w, r, nil, func(ctx context.Context, _ *query) (*kicked, error) {
		id, err := connectionID(r)
		if err != nil {
			return nil, err
		}
		return &kicked{id}, a.source.Kick(ctx, id, callerOf(r))
	})
}

func (a *endpoints) release(w http.ResponseWriter, r *http.Request) {
	answer(a, w, r, []string{"connection", "token"}, func(ctx context.Context, q *query) (*api.Release, error) {
		release := &api.ReleaseQuery{
			Key:        r.PathValue("key"),
			Connection: api.ConnectionID(q.identifier("connection")),
			Token:      q.identifier("token"),
			By:         callerOf(r),
		}
		if q.err != nil {
			return nil, q.err
		}
		return a.source.Release(ctx, release)
	})
}

func connectionID(r *http.Request) (api.ConnectionID, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: connection %.64q: want its number", api.ErrQuery, r.PathValue("id"))
	}
	return api.ConnectionID(id), nil
}

// answer asks for a value and writes it. Unknown parameters are refused: a misspelled filter would otherwise filter
// nothing.
func answer[T any](
	a *endpoints, w http.ResponseWriter, r *http.Request, parameters []string, ask func(context.Context, *query) (T, error),
) {
	ctx, cancel := context.WithTimeout(r.Context(), sourceTime)
	defer cancel()
	answerWithin(ctx, a, w, r, parameters, ask)
}

// answerWithin is answer with the time of ctx.
func answerWithin[T any](
	ctx context.Context, a *endpoints, w http.ResponseWriter, r *http.Request, parameters []string,
	ask func(context.Context, *query) (T, error),
) {
	q, err := parseQuery(r, parameters)
	if err != nil {
		a.failed(w, r, err)
		return
	}
	value, err := ask(ctx, q)
	if err != nil {
		a.failed(w, r, err)
		return
	}
	write(w, http.StatusOK, value)
}

// failed answers with an error, and the status that belongs to it.
func (a *endpoints) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, api.ErrQuery):
		fail(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, api.ErrNotFound):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, api.ErrConflict), errors.Is(err, api.ErrTakeover) && !errors.Is(err, api.ErrUnavailable):
		fail(w, http.StatusConflict, err.Error())
	case errors.Is(err, api.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, err.Error())
	default:
		a.log.Error().Err(err).Str("path", r.URL.Path).Msg("admin request failed")
		fail(w, http.StatusInternalServerError, err.Error())
	}
}

// failure is the body of an answer with an error status.
type failure struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, status int, text string) {
	write(w, status, failure{text})
}

func write(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("admin: marshal %T: %v", value, err)) // every type can be marshalled; no float is infinite
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client may be gone
}

// query reads the parameters of a request and keeps the first error.
type query struct {
	values url.Values
	err    error
}

func parseQuery(r *http.Request, parameters []string) (*query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrQuery, err)
	}
	for name, given := range values {
		if !slices.Contains(parameters, name) {
			return nil, fmt.Errorf("%w: unknown parameter %.64q", api.ErrQuery, name)
		}
		if len(given) > 1 {
			return nil, fmt.Errorf("%w: %s is given %d times", api.ErrQuery, name, len(given))
		}
	}
	return &query{values: values}, nil
}

func (q *query) text(name string) string { return q.values.Get(name) }

// number returns a number from least to [api.MaxLimit], or missing if the parameter is not given.
func (q *query) number(name string, missing, least int) int {
	text := q.text(name)
	if text == "" {
		return missing
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > api.MaxLimit {
		q.bad("%s=%.64s: want a number from %d to %d", name, text, least, api.MaxLimit)
	}
	return n
}

// natural returns a number from 0 on, nil if the parameter is not given.
func (q *query) natural(name string) *uint64 {
	text := q.text(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		q.bad("%s=%.64s: want a number", name, text)
		return nil
	}
	return &n
}

// identifier returns the number of something, which counts from 1, or 0 if the parameter is not given.
func (q *query) identifier(name string) uint64 {
	text := q.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		q.bad("%s=%.64s: want a number from 1 on", name, text)
	}
	return n
}

// seconds returns a duration in seconds, nil if the parameter is not given.
func (q *query) seconds(name string) *time.Duration {
	text := q.text(name)
	if text == "" {
		return nil
	}
	const most = 1e9 // fits into a duration
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= -most && n <= most) { // as is false for NaN
		q.bad("%s=%.64s: want a number of seconds", name, text)
		return nil
	}
	return new(time.Duration(n * float64(time.Second)))
}

// flag returns a truth value, false if the parameter is not given.
func (q *query) flag(name string) bool {
	text := q.text(name)
	if text == "" {
		return false
	}
	set, err := strconv.ParseBool(text)
	if err != nil {
		q.bad("%s=%.64s: want true or false", name, text)
	}
	return set
}

// bad keeps an error, unless there is one already.
func (q *query) bad(format string, args ...any) {
	if q.err == nil {
		q.err = fmt.Errorf("%w: "+format, append([]any{api.ErrQuery}, args...)...)
	}
}
