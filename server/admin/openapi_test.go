package admin

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/noise"
)

// described are the Go types of the schemas in openapi.json.
var described = map[string]any{
	"Error": failure{}, "Kicked": kicked{},
	"Status": api.Status{}, "Drain": api.Drain{}, "Takeover": api.Takeover{}, "Counters": api.Counters{}, "CommandCount": api.CommandCount{},
	"Fleet": api.Fleet{}, "StoreMember": api.StoreMember{}, "FleetDaemon": api.FleetDaemon{},
	"Histogram": api.Histogram{}, "Peer": api.Peer{},
	"Key": api.Key{}, "KeyPage": api.KeyPage{}, "Waiter": api.Waiter{}, "Release": api.Release{},
	"Connection": api.Connection{}, "ConnectionPage": api.ConnectionPage{},
	"EventPage": api.EventPage{}, "Event": api.Event{},
	"Deadlocks": api.Deadlocks{}, "Cycle": api.Cycle{}, "Wait": api.Wait{},
}

// loadOpenAPI returns the description, with all objects closed: a field that is not described is an error. For clients they are
// open, since fields may be added.
func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range doc.Components.Schemas {
		if len(s.Value.Properties) > 0 {
			s.Value.AdditionalProperties.Has = new(bool)
		}
	}
	return doc
}

// operations returns those of the description, by method and path.
func operations(doc *openapi3.T) map[string]*openapi3.Operation {
	all := make(map[string]*openapi3.Operation)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			all[method+" "+path] = op
		}
	}
	return all
}

// Every route is described, and every description has its route.
func TestOpenAPIRoutes(t *testing.T) {
	missing := operations(loadOpenAPI(t))
	a := &endpoints{source: newFake()}
	for _, r := range slices.Concat(a.routes(noise.New(zerolog.Nop())), a.probes()) {
		name := r.method + " " + r.path
		if missing[name] == nil {
			t.Errorf("openapi.json does not describe %s: add it to paths", name)
		}
		delete(missing, name)
	}
	for name := range missing {
		t.Errorf("openapi.json describes %s, which is no route", name)
	}
}

// Every field of a type is described, by its name and whether it is always there, and no other.
func TestOpenAPITypes(t *testing.T) {
	schemas := loadOpenAPI(t).Components.Schemas
	for name, value := range described {
		s := schemas[name]
		if s == nil {
			t.Errorf("openapi.json has no schema %s for %T", name, value)
			continue
		}
		fields := fieldsOf(reflect.TypeOf(value))
		for field, always := range fields {
			switch required := slices.Contains(s.Value.Required, field); {
			case s.Value.Properties[field] == nil:
				t.Errorf("%T has the field %q: openapi.json does not describe it: add it to components.schemas.%s", value, field, name)
			case always != required:
				t.Errorf("the field %q of %T is always there: %t; it is among the required ones of components.schemas.%s: %t",
					field, value, always, name, required)
			}
		}
		for field := range s.Value.Properties {
			if _, ok := fields[field]; !ok {
				t.Errorf("openapi.json has the field %q in components.schemas.%s, and %T does not", field, name, value)
			}
		}
	}
	for name, s := range schemas {
		if len(s.Value.Properties) > 0 && described[name] == nil {
			t.Errorf("the schema %s of openapi.json has no type in the table of this test", name)
		}
	}
	states := schemas["Connection"].Value.Properties["state"].Value.Enum
	for _, state := range api.States {
		if !slices.Contains(states, any(state)) {
			t.Errorf("a connection may be %q, which openapi.json does not know: %v", state, states)
		}
	}
}

// All kinds of events are described.
func TestOpenAPIEventKinds(t *testing.T) {
	kinds := loadOpenAPI(t).Components.Schemas["Event"].Value.Properties["kind"].Value.Enum
	for _, kind := range api.EventKinds {
		if !slices.Contains(kinds, any(kind)) {
			t.Errorf("an event may be %q, which openapi.json does not know: %v", kind, kinds)
		}
	}
}

// fieldsOf returns the names of the fields in JSON, and whether they are always there.
func fieldsOf(t reflect.Type) map[string]bool {
	fields := make(map[string]bool)
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			maps.Copy(fields, fieldsOf(f.Type))
			continue
		}
		fields[name] = !strings.Contains(options, "omit")
	}
	return fields
}

// conformance compares answers with the description.
type conformance struct {
	t    *testing.T
	ops  map[string]*openapi3.Operation
	seen map[string]map[int]bool // the statuses, by operation
}

// check compares one answer.
func (c *conformance) check(name string, status int, contentType string, body []byte) {
	c.t.Helper()
	op := c.ops[name]
	if op == nil {
		c.t.Fatalf("openapi.json does not describe %s", name)
	}
	if c.seen[name] == nil {
		c.seen[name] = make(map[int]bool)
	}
	c.seen[name][status] = true
	response := op.Responses.Status(status)
	if response == nil {
		c.t.Errorf("%s answers with status %d, which openapi.json does not describe: %s", name, status, body)
		return
	}
	kind, _, _ := mime.ParseMediaType(contentType)
	media := response.Value.Content.Get(kind)
	if media == nil || kind == "" {
		c.t.Errorf("%s answers with status %d as %q, which openapi.json does not describe", name, status, contentType)
		return
	}
	for _, part := range parts(kind, body) {
		var value any = string(part)
		if kind != "text/plain" {
			if err := json.Unmarshal(part, &value); err != nil {
				c.t.Errorf("%s, status %d: %v in %s", name, status, err, part)
				return
			}
		}
		err := media.Schema.Value.VisitJSON(value, openapi3.VisitAsResponse(), openapi3.MultiErrors(), openapi3.DisableSchemaErrorDetails())
		if err != nil {
			c.t.Errorf("%s, status %d: the answer is not as openapi.json describes it: %v\n%s", name, status, err, part)
		}
	}
}

// parts returns the values in a body.
func parts(kind string, body []byte) [][]byte {
	if kind != "application/x-ndjson" {
		return [][]byte{body}
	}
	var lines [][]byte
	for line := range strings.Lines(string(body)) {
		lines = append(lines, []byte(line))
	}
	return lines
}

// complete fails the test if a status that is described was not seen.
func (c *conformance) complete() {
	for name, op := range c.ops {
		for status := range op.Responses.Map() {
			if n, err := strconv.Atoi(status); err != nil || !c.seen[name][n] {
				c.t.Errorf("openapi.json describes status %s of %s: no request of this test gets it", status, name)
			}
		}
	}
}

// Every answer is as it is described, and every answer that is described occurs: those of a real daemon, and those of a server that
// has a fault, is not to be asked, or is asked too much.
func TestOpenAPIAnswers(t *testing.T) {
	doc := loadOpenAPI(t)
	c := &conformance{t: t, ops: operations(doc), seen: make(map[string]map[int]bool)}
	c.askRealDaemon()
	c.refusals()
	c.complete()
}

// askRealDaemon has a daemon with holders, waiters and a deadlock answer requests that succeed, and those that only it can refuse.
func (c *conformance) askRealDaemon() {
	t := c.t
	address, url := serveReal(t)
	holder, waiter, other := prototest.Dial(t, address), prototest.Dial(t, address), prototest.Dial(t, address)
	for _, p := range []*prototest.Client{holder, waiter} {
		p.Send("name builder", "owner me")
		for range 2 {
			if _, err := p.ReadReply(); err != nil {
				t.Fatal(err)
			}
		}
	}
	holder.Do("lock left 0", "l locked")
	holder.Do("lock many 0", "l locked")
	other.Do("lock right 0", "l locked")
	other.Send("lock left 600000")
	waiter.Send("lock right 600000") // its owner holds what the other one waits for
	c.await(url, "/api/v1/deadlocks", `"waits_for"`)
	for _, r := range []struct{ name, target string }{
		{"GET /api/v1/status", "/api/v1/status"},
		{"GET /api/v1/keys", "/api/v1/keys?limit=1"},
		{"GET /api/v1/keys", "/api/v1/keys"},
		{"GET /api/v1/keys/{key}", "/api/v1/keys/left"},
		{"GET /api/v1/keys/{key}", "/api/v1/keys/nobodys"},
		{"GET /api/v1/connections", "/api/v1/connections?limit=1"},
		{"GET /api/v1/connections", "/api/v1/connections"},
		{"GET /api/v1/connections/{id}", "/api/v1/connections/1"},
		{"GET /api/v1/connections/{id}", "/api/v1/connections/999"},
		{"GET /api/v1/deadlocks", "/api/v1/deadlocks"},
		{"GET /api/v1/openapi.json", "/api/v1/openapi.json"},
		{"GET /metrics", "/metrics"},
		{"GET /healthz", "/healthz"},
		{"GET /readyz", "/readyz"},
		{"POST /api/v1/keys/{key}/release", "/api/v1/keys/left/release?token=1"},
		{"POST /api/v1/keys/{key}/release", "/api/v1/keys/nobodys/release"},
		{"POST /api/v1/keys/{key}/release", "/api/v1/keys/many/release"},
		{"POST /api/v1/keys/{key}/release", "/api/v1/keys/left/release"},
		{"POST /api/v1/connections/{id}/kick", "/api/v1/connections/999/kick"},
		{"POST /api/v1/connections/{id}/kick", "/api/v1/connections/1/kick"},
		{"GET /api/v1/events", "/api/v1/events"},
		{"POST /api/v1/drain", "/api/v1/drain?timeout=600"},
		{"GET /api/v1/status", "/api/v1/status"}, // that drains
		{"POST /api/v1/drain", "/api/v1/drain?wait=true&timeout=0"},
	} {
		method, _, _ := strings.Cut(r.name, " ")
		status, kind, body := request(t, method, url+r.target)
		c.check(r.name, status, kind, body)
	}
}

// await asks until the answer has a text.
func (c *conformance) await(url, target, text string) {
	c.t.Helper()
	for end := time.Now().Add(patience); ; {
		_, _, body := request(c.t, http.MethodGet, url+target)
		if strings.Contains(string(body), text) {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s: %s", target, body)
		}
		<-time.After(time.Millisecond)
	}
}

func request(t *testing.T, method, url string) (status int, contentType string, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), body
}

// refusals has every operation refused for each reason that has nothing to do with what it is about. And it has a server taken over, which
// takes a process.
func (c *conformance) refusals() {
	broken := func(err error) http.Handler {
		f := newFake()
		f.err = err
		return handlerOf(f)
	}
	log := noise.New(zerolog.Nop())
	secret := &tokenFile{}
	secret.current.Store(newToken("a secret that nobody shows"))
	busy := newLimit()
	busy.busy = maxRequests
	cfg := &Config{Source: newFake(), Log: zerolog.Nop()}
	successor := handlerOf(newFake())
	for _, r := range []struct {
		name, method, target string
		h                    http.Handler
	}{
		{"GET /api/v1/events", http.MethodGet, "/api/v1/events", broken(api.ErrNotFound)}, // with --events 0
		{"POST /api/v1/takeover", http.MethodPost, "/api/v1/takeover", broken(api.ErrTakeover)},
		{"POST /api/v1/takeover", http.MethodPost, "/api/v1/takeover", successor},
		{"GET /api/v1/status", http.MethodGet, "/api/v1/status", successor},
	} {
		w := ask(r.h, r.method, r.target, nil)
		c.check(r.name, w.Code, w.Header().Get("Content-Type"), w.Body.Bytes())
	}
	for name := range c.ops {
		method, path, _ := strings.Cut(name, " ")
		target := strings.NewReplacer("{key}", "k000", "{id}", "1").Replace(path)
		for _, r := range []struct {
			h      http.Handler
			target string
			header http.Header
		}{
			{handlerOf(newFake()), target + "?misspelled=1", nil},
			{handlerOf(newFake()), target, http.Header{"Host": {"evil.example"}}},
			{newHandler(cfg, secret, newLimit(), log, nil), target, nil},
			{newHandler(cfg, nil, busy, log, nil), target, nil},
			{broken(api.ErrUnavailable), target, nil},
			{broken(errors.New("a fault")), target, nil},
		} {
			w := ask(r.h, method, r.target, r.header)
			c.check(name, w.Code, w.Header().Get("Content-Type"), w.Body.Bytes())
		}
	}
}
