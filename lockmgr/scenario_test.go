package lockmgr

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScenarios runs the stories in testdata. Sessions and keys come into being when they are named; a key "x*600" is
// 600 times the letter x. The commands:
//
//	lock s a      s asks for a and waits if it must
//	try s a       s asks for a and does not wait
//	unlock s a    s gives up a
//	take a        somebody else takes a from its holder
//	cancel s      s waits no longer
//	close s       s ends: its wait is cancelled, what it holds given up
//	step s        s ends as well, but gives up one key only: the rest with further steps
//	show          every key that is held, or not given up yet
//	delay n       first of all: the keys of sessions that end rest for n seconds, and so do all at the beginning, when they
//	              may belong to a session "unknown"
//	pass n        n seconds pass
//
// The first line of an answer is the outcome with the grants it caused; then comes one line for every key that was
// touched: the holder with the token of its grant, then the waiters. "(until n)" follows a holder whose keys rest.
func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories in testdata: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := newScenario()
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				out := s.run(t, d)
				if err := checkTable(s.table, s.seed.Hash, s.owners()...); err != nil {
					d.Fatalf(t, "invariant broken: %v", err)
				}
				return out
			})
		})
	}
}

type scenario struct {
	seed     Seed
	table    *Table
	now      time.Duration
	sessions map[string]*scenarioSession
	names    map[*Owner]string
}

type scenarioSession struct {
	owner  Owner
	waiter Waiter
}

func newScenario() *scenario {
	return &scenario{
		seed:     MakeSeed(),
		table:    NewTable(1),
		sessions: map[string]*scenarioSession{},
		names:    map[*Owner]string{},
	}
}

func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	arg := func(i int) string {
		if i >= len(d.CmdArgs) {
			d.Fatalf(t, "%s wants more arguments", d.Cmd)
		}
		return d.CmdArgs[i].Key
	}

	var grants Grants
	switch d.Cmd {
	case "lock", "try":
		session, key := s.session(arg(0)), arg(1)
		outcome := s.table.Lock(&session.owner, &session.waiter, s.hash(key), spell(key), d.Cmd == "lock")
		return s.answer(outcome.String(), &grants, key)

	case "unlock":
		session, key := s.session(arg(0)), arg(1)
		outcome := s.table.Unlock(&session.owner, s.hash(key), spell(key), &grants)
		return s.answer(outcome.String(), &grants, key)

	case "take":
		key := arg(0)
		outcome := s.table.Take(s.hash(key), spell(key), &grants)
		return s.answer(outcome.String(), &grants, key)

	case "cancel":
		session := s.session(arg(0))
		touched := session.waits()
		if !s.table.Cancel(&session.waiter) {
			return s.answer("not queued", &grants)
		}
		return s.answer("cancelled", &grants, touched...)

	case "close":
		session := s.session(arg(0))
		touched := append(session.waits(), session.holds()...)
		s.table.Cancel(&session.waiter)
		s.table.Close(&session.owner, &grants)
		return s.answer("closed", &grants, touched...)

	case "step":
		session := s.session(arg(0))
		touched := append(session.waits(), session.holds()...)
		s.table.Cancel(&session.waiter)
		outcome := "closed"
		if s.table.CloseSome(&session.owner, 1, &grants) {
			outcome = "closing"
		}
		return s.answer(outcome, &grants, touched...)

	case "delay":
		s.table.SetDelay(seconds(arg(0)), &s.session("unknown").owner)
		return ""

	case "pass":
		s.now += seconds(arg(0))
		s.table.Advance(s.now)
		return ""

	case "show":
		var keys []string
		for _, session := range s.sessions {
			keys = append(keys, session.holds()...)
		}
		slices.Sort(keys)
		outcome := fmt.Sprintf("%d keys, %d waiters", s.table.Keys(), s.table.Waiters())
		if n := s.table.Resting(); n > 0 && s.table.delay > 0 {
			outcome = fmt.Sprintf("%s, %d rest", outcome, n)
		}
		return s.answer(outcome, &grants, keys...)

	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
		return ""
	}
}

// answer is the outcome, the grants in their order, and a line for each key.
func (s *scenario) answer(outcome string, grants *Grants, keys ...string) string {
	var b strings.Builder
	b.WriteString(outcome)
	for sep := "; granted "; !grants.Empty(); sep = " " {
		b.WriteString(sep + grants.Pop().Tag.(string))
	}
	b.WriteByte('\n')
	for _, key := range keys {
		fmt.Fprintf(&b, "%s: ", key)
		e := *s.table.index.find(s.hash(key), spell(key))
		if e == nil {
			b.WriteString("free\n")
			continue
		}
		fmt.Fprintf(&b, "%s #%d", s.names[e.owner], e.token)
		if s.table.Rest(e.owner) > 0 {
			fmt.Fprintf(&b, " (until %g)", e.owner.until.Seconds())
		}
		for w, sep := e.first, " <- "; w != nil; w, sep = w.next, " " {
			b.WriteString(sep + w.Tag.(string))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *scenario) session(name string) *scenarioSession {
	session := s.sessions[name]
	if session == nil {
		session = &scenarioSession{waiter: Waiter{Tag: name}}
		s.sessions[name] = session
		s.names[&session.owner] = name
	}
	return session
}

func (s *scenario) owners() []*Owner {
	var owners []*Owner
	for o := range s.names {
		owners = append(owners, o)
	}
	return owners
}

func (s *scenario) hash(key string) uint64 {
	return s.seed.Hash(spell(key))
}

// seconds reads a number of seconds.
func seconds(text string) time.Duration {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(fmt.Sprintf("seconds %q: %v", text, err))
	}
	return time.Duration(n) * time.Second
}

// waits returns the key that the session waits for, if any.
func (session *scenarioSession) waits() []string {
	if !session.waiter.Queued() {
		return nil
	}
	return []string{abbreviate(session.waiter.entry.key)}
}

// holds returns the keys that the session holds, the oldest first.
func (session *scenarioSession) holds() []string {
	var keys []string
	first := session.owner.held
	for e := first; e != nil; {
		keys = append(keys, abbreviate(e.key))
		if e = e.next; e == first {
			break
		}
	}
	return keys
}

// spell turns "x*600" into 600 letters; abbreviate does the reverse.
func spell(key string) []byte {
	letter, times, found := strings.Cut(key, "*")
	if !found {
		return []byte(key)
	}
	n, err := strconv.Atoi(times)
	if err != nil {
		panic(fmt.Sprintf("key %q: %v", key, err))
	}
	return bytes.Repeat([]byte(letter), n)
}

func abbreviate(key []byte) string {
	if len(key) <= 16 {
		return string(key)
	}
	return fmt.Sprintf("%c*%d", key[0], len(key))
}
