package admin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"dreadlock/server/api"
)

// tardy is a fake that answers some questions late, after questions that came later.
type tardy struct {
	*fake
	mu    sync.Mutex
	gates map[string]*gate // by question
}

// gate holds one answer back.
type gate struct {
	asked  chan struct{} // closed when the question has come
	answer chan error    // gets the error of the answer, nil for a good one
}

// late makes the next question of that name wait for its answer.
func (s *tardy) late(question string) *gate {
	g := &gate{make(chan struct{}), make(chan error, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gates[question] = g
	return g
}

func (s *tardy) pass(question string) error {
	s.mu.Lock()
	g := s.gates[question]
	delete(s.gates, question)
	s.mu.Unlock()
	if g == nil {
		return nil
	}
	close(g.asked)
	return <-g.answer
}

func (s *tardy) Keys(ctx context.Context, q api.KeyQuery) (*api.KeyPage, error) {
	if err := s.pass("keys " + q.Contains); err != nil {
		return nil, err
	}
	return s.fake.Keys(ctx, q)
}

func (s *tardy) Key(ctx context.Context, key string, queue int) (*api.Key, error) {
	if err := s.pass("key " + key); err != nil {
		return nil, err
	}
	return s.fake.Key(ctx, key, queue)
}

func (s *tardy) Connections(ctx context.Context, q api.ConnectionQuery) (*api.ConnectionPage, error) {
	if err := s.pass("connections " + q.Client); err != nil {
		return nil, err
	}
	return s.fake.Connections(ctx, q)
}

func (s *tardy) Connection(ctx context.Context, id api.ConnectionID) (*api.Connection, error) {
	if err := s.pass(fmt.Sprint("connection ", id)); err != nil {
		return nil, err
	}
	return s.fake.Connection(ctx, id)
}

// countAnswers makes the page count the answers that it has handled, by the path of the question.
func (b *tab) countAnswers() {
	b.t.Helper()
	eval[bool](b, `(ask => {
		window.answers = {};
		call = async (path, ...rest) => {
			try {
				return await ask(path, ...rest);
			} finally {
				setTimeout(() => answers[path] = (answers[path] ?? 0) + 1); // after all that waits for this answer
			}
		};
		return true;
	})(call)`)
}

// An answer that comes after the answer to a later question is not shown, and neither is a failure: what is shown always
// belongs to the last question.
func TestPageOutOfOrder(t *testing.T) {
	skipIfShort(t)
	for _, c := range []struct {
		name          string
		question      string // which is answered last
		path          string // of it
		at            string // where the page is before, if not at the beginning
		first, second func(*tab)
		shown         string // the answer to the second question
		fails         error
	}{
		{
			name: "search", question: "keys k01", path: "keys?contains=k01&order=key&limit=20",
			first:  func(b *tab) { b.typed("#contains", "k01") },
			second: func(b *tab) { b.typed("#contains", "9") },
			shown:  text("#found-text") + " === '1 key is held.' && " + text("#found tbody") + ".startsWith('k019')",
		},
		{
			name: "failed search", question: "keys k01", path: "keys?contains=k01&order=key&limit=20", fails: errors.New("out of order"),
			first:  func(b *tab) { b.typed("#contains", "k01") },
			second: func(b *tab) { b.typed("#contains", "9") },
			shown:  text("#found-text") + " === '1 key is held.' && " + text("#message") + " === '' && " + text("#health") + " === 'serving'",
		},
		{
			name: "filter", question: "connections 10.1.", path: "connections?client=10.1.&order=connection&limit=20",
			first:  func(b *tab) { b.typed("#client", "10.1.") },
			second: func(b *tab) { b.typed("#client", "0.2") },
			shown:  text("#connections-text") + " === '1 connection.'",
		},
		{
			name: "key", question: "key k000", path: "keys/k000?queue=100",
			first:  func(b *tab) { eval[string](b, "location.hash = 'key=k000'") },
			second: func(b *tab) { eval[string](b, "location.hash = 'key=k001'") },
			shown:  text("#detail-title") + " === 'Key k001' && " + text("#facts") + ".includes('#14 ')",
		},
		{
			name: "key and connection", question: "key k000", path: "keys/k000?queue=100",
			first:  func(b *tab) { eval[string](b, "location.hash = 'key=k000'") },
			second: func(b *tab) { eval[string](b, "location.hash = 'connection=14'") },
			shown:  text("#detail-title") + " === 'Connection 14' && " + text("#holds") + " === 'k001' && " + text("#queue") + " === ''",
		},
		{
			name: "key to open", question: "key k000", path: "keys/k000?queue=0",
			first:  func(b *tab) { b.typed("#contains", "k000\r") },
			second: func(b *tab) { eval[string](b, "location.hash = 'key=k001'") },
			shown:  text("#detail-title") + " === 'Key k001' && location.hash === '#key=k001'",
		},
		{
			name: "key to open, typed on", question: "key k00", path: "keys/k00?queue=0",
			first:  func(b *tab) { b.typed("#contains", "k00\r") },
			second: func(b *tab) { b.typed("#contains", "9") },
			shown:  text("#found-text") + " === '1 key is held.' && location.hash === ''",
		},
		{
			name: "kick", question: "connection 1", path: "connections/1", at: "key=k000",
			first:  func(b *tab) { b.click("#acts button") },
			second: func(b *tab) { b.click("#cycles button") },
			shown:  text("#act-title") + " === 'Kick connection 111?'",
		},
		{
			name: "kick and away", question: "connection 1", path: "connections/1", at: "key=k000",
			first:  func(b *tab) { b.click("#acts button") },
			second: func(b *tab) { eval[string](b, "location.hash = 'key=k001'") },
			shown:  text("#detail-title") + " === 'Key k001' && !document.querySelector('#act').open",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := &tardy{fake: newFake(), gates: map[string]*gate{}}
			// A key whose name is how others begin.
			source.change(func(f *fake) { f.keys = append(f.keys, api.Key{Key: "k00", Holder: f.conns[0].Peer}) })
			b := openTab(t)
			b.open(serve(t, Config{Source: source}) + "/")
			b.until(text("#health") + " === 'serving' && " + text("#connections") + " !== ''")
			if c.at != "" {
				eval[string](b, fmt.Sprintf("location.hash = %q", c.at))
				b.until(text("#acts") + " !== ''")
			}
			b.countAnswers()
			late := source.late(c.question)
			c.first(b)
			select {
			case <-late.asked:
			case <-time.After(patience):
				t.Fatalf("the page does not ask for %s", c.question)
			}
			c.second(b)
			b.until(c.shown)
			before := eval[int](b, fmt.Sprintf("answers[%q] ?? 0", c.path))
			late.answer <- c.fails
			b.until(fmt.Sprintf("(answers[%q] ?? 0) > %d", c.path, before))
			if !eval[bool](b, c.shown) {
				t.Errorf("after the late answer it is no longer true: %s\npage:\n%s", c.shown, eval[string](b, "document.body.innerText"))
			}
		})
	}
}

// "More keys" is not undone by the search of the letter that was typed before it, which waits for more letters.
func TestPageMoreWhileTyping(t *testing.T) {
	skipIfShort(t)
	for _, c := range []struct {
		field, text, more, path string
		few, many               string
	}{
		{"#contains", "k0", "#found-more", "keys?contains=k0&order=key&limit=100",
			"document.querySelectorAll('#found tbody tr').length === 20", "document.querySelectorAll('#found tbody tr').length === 30"},
		{"#client", "10.0.", "#connections-more", "connections?client=10.0.&order=connection&limit=100",
			"document.querySelectorAll('#connections tbody tr').length === 20", "document.querySelectorAll('#connections tbody tr').length === 100"},
	} {
		b := openTab(t)
		b.open(serve(t, Config{Source: newFake()}) + "/")
		b.until(text("#health") + " === 'serving' && " + text("#connections") + " !== ''")
		b.typed(c.field, c.text[:len(c.text)-1])
		b.until(c.few)
		b.countAnswers()
		// The pause after the last letter ends when the test says so.
		eval[bool](b, `(set => {
			setTimeout = (f, ms) => ms === 200 ? (window.pauseEnds = f, 0) : set(f, ms);
			return true;
		})(setTimeout)`)
		b.typed(c.field, c.text[len(c.text)-1:])
		b.click(c.more)
		b.until(c.many)
		eval[bool](b, "Object.keys(answers).forEach(path => answers[path] = 0), pauseEnds(), true")
		b.until(fmt.Sprintf("answers[%q] > 0", c.path))
		if !eval[bool](b, c.many) {
			t.Errorf("%s: more is less again after the pause", c.field)
		}
	}
}

// A question that was asked without the token, and is refused after the token was entered, is asked again with it.
func TestPageTokenWhileAsking(t *testing.T) {
	skipIfShort(t)
	const secret = "0123456789abcdef"
	b := openTab(t)
	b.open(serve(t, Config{Source: newFake(), TokenFile: secretFile(t, secret, 0o600)}) + "/")
	b.until("document.querySelector('#token').open")
	got := eval[string](b, fmt.Sprintf(`(async send => {
		fetch = (...request) => new Promise(done => window.go = () => done(send(...request)));
		const status = call('status');
		fetch = send;
		sessionStorage.setItem('token', %q);
		go();
		return (await status).version;
	})(fetch)`, secret))
	if got != "v1.2.3" {
		t.Errorf("version %q", got)
	}
}
