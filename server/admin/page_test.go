package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"dreadlock/server/api"
)

// The page is one file that loads nothing, and its policy has the hashes of the script and the style.
func TestPageIsOneFile(t *testing.T) {
	w := ask(handlerOf(newFake()), http.MethodGet, "/", nil)
	policy := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q has no %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	for _, elsewhere := range []string{"src=", "url(", "@import", "://", "innerHTML"} {
		for line := range strings.Lines(w.Body.String()) {
			if strings.Contains(line, elsewhere) && !strings.Contains(line, "http://www.w3.org/2000/svg") { // a namespace
				t.Errorf("%q in %q", elsewhere, line)
			}
		}
	}
}

// The page shows the server, and the browser has nothing to complain about.
func TestPageShows(t *testing.T) {
	b := openTab(t)
	b.open(serve(t, Config{Source: newFake()}) + "/")
	b.until(text("#health") + " === 'serving'")
	b.until(text("#about") + ".includes('3 of at most 1,024 MiB of memory')")
	b.until(text("#place") + " === 'lock7:6001' && document.title === '(1 deadlock) lock7:6001 dreadlock'")
	b.until(text("#about") + ".includes('v1.2.3 · listening on 127.0.0.1:6001 and 1 more address · up 3 h 0 min · 2 loops')")

	// Rates come with the second answer: 100 commands in the second in between.
	b.until(text("#plots li:nth-child(1) b") + " === '100'")
	b.until("document.querySelector('#plots .line').getAttribute('d').includes('L')")
	b.until(text("#plots li:nth-child(4) b") + " === '33'")

	b.until("document.querySelectorAll('#hot tbody tr').length === 10")
	// The time axis.
	b.until(text("#plots .axis") + " === '20 s ago\\nnow' || " + text("#plots .axis") + ".endsWith('s agonow')")

	b.until(text("#hot tbody tr:first-child") + ".startsWith('k000')")
	b.until(text("#hot tbody tr:first-child td:nth-child(2)") + ".trim() === '12'")
	b.until(text("#long tbody tr:first-child") + ".startsWith('k011')")
	b.until(text("#hot tbody tr:first-child td:nth-child(3)") + " === '#1 ann@build7'")
	b.until(text("#connections tbody tr:first-child") + ".includes('#1 ann@build7\\n10.0.0.1:40001, owner deploy')")
	b.until(text("#connections tbody tr:nth-child(2)") + ".includes('#2 10.0.0.2:40002')")
	b.until(text("#connections tbody tr:nth-child(3)") + ".includes('#3 bob@build8\\nbuild8.example, 10.0.0.3:40003, owner Release7')")

	b.click("summary")
	for _, count := range []string{"disconnected: broken", "a_new_one: done", "refused: tls handshake", "accept error: EMFILE"} {
		b.until(text("#counts") + fmt.Sprintf(".includes('%s')", count))
	}
	b.quiet()
}

// Keys are listed at once. What is typed is a part of the key or of what is known about its holder, and the heads sort.
func TestPageSearch(t *testing.T) {
	b := openTab(t)
	b.open(serve(t, Config{Source: newFake()}) + "/")
	b.until(text("#found-text") + " === '33 keys are held.' && document.querySelectorAll('#found tbody tr').length === 20")
	b.until(text("#ages li:nth-child(4)") + " === '28\\n1 min to 10 min' || " + text("#ages") + ".includes('1 min to 10 min')")
	b.typed("#contains", "02")
	b.until("document.querySelectorAll('#found tbody tr').length === 11")
	b.until(text("#found-text") + " === '11 keys are held.'")
	b.until("!document.querySelector('#found th:nth-child(5)').ariaSort && document.querySelector('#found th').ariaSort === 'ascending'")
	b.click("#found th:nth-child(5) button")
	b.until(text("#found tbody tr:first-child") + ".startsWith('k029')")
	b.until("document.querySelector('#found th:nth-child(5)').ariaSort === 'descending' && !document.querySelector('#found th').ariaSort")
	b.click("#found th:nth-child(2) button")
	b.until(text("#found tbody tr:first-child") + ".startsWith('k002')")

	// Enter opens the key that was typed, if it is held.
	eval[string](b, "document.querySelector('#contains').value = ''")
	b.typed("#contains", "k020\r")
	b.until(text("#detail-title") + " === 'Key k020' && " + text("#facts") + " !== ''")

	eval[string](b, "document.querySelector('#contains').value = ''")
	b.typed("#holder", "ann@")
	b.until(text("#found-text") + " === '1 key is held.' && " + text("#found tbody") + ".startsWith('k000')")
	eval[string](b, "document.querySelector('#holder').value = ''")
	b.click("#search button")
	b.until("document.querySelectorAll('#found tbody tr').length === 20")
	b.click("#found-more")
	b.until("document.querySelectorAll('#found tbody tr').length === 33")
	b.quiet()
}

func TestPageConnections(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	f.change(func(f *fake) { f.conns[0].Held, f.conns[0].Holds = 5, []string{"k000", "b", "c", "d", "e"} })
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#connections tbody tr:first-child td:nth-child(3)") + " === 'k000\\nb\\nc\\nand 2 more'")
	b.click("#connections th:nth-child(3) button")
	b.until(text("#connections tbody tr:first-child") + ".includes('#1 ann@build7')")
	b.click("#connections th:nth-child(5) button")
	b.until(text("#connections tbody tr:first-child td:nth-child(4)") + " === 'k011'")
	b.until(text("#connections tbody tr:first-child td:nth-child(5)") + " === '1 min 0 s'")
	b.click("#waiting")
	b.click("#holding")
	b.until(text("#connections-text") + " === '3 connections.'")
	b.until(text("#connections tbody tr:first-child td:nth-child(3)") + ".length > 0") // one key, and nothing but the key
	b.until("!" + text("#connections tbody") + ".includes('1 key')")
	b.typed("#client", "10.1.0.2")
	b.until(text("#connections-text") + " === '1 connection.' && " + text("#connections tbody") + ".includes('gamma')")
	b.quiet()
}

func TestPageDeadlock(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#deadlocks-text") + ".startsWith('1 deadlock now. 4 found and 1 broken')")
	b.until("document.querySelectorAll('#cycles svg .node').length === 3 && document.querySelectorAll('#cycles svg .tip').length === 3")
	arrows := eval[[]string](b, "Array.from(document.querySelectorAll('#cycles .label'), label => label.textContent)")
	if !slices.Equal(arrows, []string{"beta", "gamma", "alpha"}) {
		t.Errorf("arrows: %q", arrows)
	}
	b.until("document.querySelectorAll('#cycles li').length === 3")
	b.until(text(".advice") + ".startsWith('To end it, kick #111 gamma.example: it came last')")
	b.until(text("#cycles button") + " === 'Kick #111' && document.querySelectorAll('#cycles button').length === 1")
	b.until(text("#cycles li") + ".includes('for beta, which #110 holds')")
	b.until(text("#cycles li:nth-child(2)") + ".includes('#110 nightly has waited')")
	b.until(text("#cycles li:nth-child(3)") + ".includes('#111 gamma.example has waited')")

	// The connections of one owner count as one, so another connection of the next one's owner may hold the key.
	f.change(func(f *fake) { f.cycles[0].Waits[0].HeldBy, f.cycles[0].Waits[1].Owner = 5, "etl" })
	b.until(text("#cycles li") + ".includes('for beta, which #5 holds for the owner etl')")

	// The first to be kicked may hold nothing itself.
	b.until(text(".advice") + ".includes('#110 nightly waits for a key that this frees.')")
	f.change(func(f *fake) { f.cycles[0].Waits[1].HeldBy, f.cycles[0].Waits[2].Owner = 6, "report" })
	b.until(text(".advice") + ".includes('#110 nightly waits for gamma, which its owner should then give up with #6.')")

	var many []string
	for i := range 12 {
		many = append(many, fmt.Sprint("many", i+1))
	}
	f.change(func(f *fake) { f.addDeadlock(many...) })
	b.until("document.querySelectorAll('.cycle').length === 2 && document.querySelectorAll('.cycle:nth-child(2) li').length === 12")
	b.until(text(".cycle:nth-child(2) svg + div") + ".includes('many12')")
	b.until("document.querySelector('.cycle:nth-child(2) svg').textContent.includes('10 of 12')")

	f.change(func(f *fake) { f.cycles = nil })
	b.until(text("#deadlocks-text") + ".startsWith('No deadlock now.') && !document.querySelector('#cycles svg')")
	b.quiet()
}

// In a drain the page says since when, for how long, and what is still held.
func TestPageDrain(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#health") + " === 'serving' && " + text("#drain") + " === ''")
	if _, err := f.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	b.until(text("#health") + " === 'draining' && document.title === '(draining, 1 deadlock) lock7:6001 dreadlock'")
	b.until(text("#drain-text") + ".includes('33 keys are held, and 81 connections wait.')")
	b.until(text("#drain-text") + ".includes('in 30 s at the latest')")
	b.until("document.querySelectorAll('#held tbody tr').length === 10")
	b.until(text("#held tbody tr:first-child") + ".startsWith('k029') && " + text("#held tbody tr:first-child") + ".includes('10.0.0.')")
	b.click("#held tbody tr:first-child a.key")
	b.until(text("#detail-title") + " === 'Key k029'")
	b.quiet()
}

func TestPageToken(t *testing.T) {
	skipIfShort(t)
	const secret = "0123456789abcdef"
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f, TokenFile: secretFile(t, secret, 0o600)}) + "/")
	b.until(text("#token-text") + " === 'Enter the token from the --admin-token-file of the server.'")
	b.typed("#token-input", "nöt this one\r") // a header cannot carry it
	b.until(text("#token-text") + " !== '' && !document.querySelector('#token-input').validity.valid")
	eval[string](b, "document.querySelector('#token-input').value = ''")
	b.typed("#token-input", "not-this-one\r")
	b.until(text("#token-text") + " === 'The server refused that token.'")
	b.until(text("#health") + " === 'token needed'")
	b.typed("#token-input", secret+"\r")
	b.until(text("#health") + " === 'serving' && " + text("#hot") + ".includes('k000')")

	// The tab keeps it, and a kick shows it too.
	b.do(chromedp.Reload())
	b.until(text("#health") + " === 'serving' && " + text("#hot") + ".includes('k000')")
	b.click("#hot tbody tr:first-child a.key")
	b.hear()
	b.click("#acts button.kick")
	b.click("#act button.danger")
	b.until("heard.includes('is closed')")
	if len(f.kicked()) != 1 {
		t.Error("not kicked")
	}
}

// The page says that the server does not answer, goes on when it answers again, and knows that a new server counts from
// zero.
func TestPageRestart(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#plots li:nth-child(1) b") + " === '100'")
	f.change(func(f *fake) { f.err = fmt.Errorf("loop 1: %w", api.ErrUnavailable) })
	b.until(text("#health") + " === 'no answer' && " + text("#alert") + ".includes('loop 1')")
	f.change(func(f *fake) {
		f.err = nil
		f.status.Started, f.status.UptimeSeconds = time.Now(), 0
		f.status.Counters = api.Counters{
			Commands: []api.CommandCount{{Kind: "lock", Outcome: "locked"}}, Waits: f.status.Counters.Waits,
		}
	})
	b.until(text("#health") + " === 'serving' && " + text("#alert") + " === ''")
	b.until(text("#plots li:nth-child(1) b") + " === '100'")
	paths := eval[string](b, "Array.from(document.querySelectorAll('#plots path'), path => path.getAttribute('d')).join(' ')")
	if strings.Contains(paths, "NaN") || strings.Contains(paths, "Infinity") {
		t.Errorf("plots: %s", paths)
	}
	if low := eval[float64](b, "Math.min(...samples.flatMap(s => s.values).filter(v => v !== null))"); low < 0 {
		t.Errorf("a rate of %v", low)
	}
}

// The page of a server that is taken over says so, and its charts go on: nothing counts from zero.
func TestPageTakeover(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#plots li:nth-child(1) b") + " === '100'")
	if text := eval[string](b, text("#about")); strings.Contains(text, "took over") {
		t.Error(text)
	}
	samples := eval[int](b, "samples.length")
	if _, err := f.TakeOver(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	b.until(text("#about") + ".startsWith('v1.2.4 · ') && " + text("#about") + ".includes(' · took over from process 4711 (v1.2.3) at 20')")
	b.until(text("#about") + ".endsWith(', in which nobody was answered for 13 ms')")
	b.until(fmt.Sprintf("samples.length > %d", samples+1))
	if gaps := eval[int](b, "samples.slice(1).filter(s => s.values[0] === null).length"); gaps > 0 {
		t.Errorf("%d gaps in the rates", gaps)
	}
	b.quiet()
}

// What comes from clients is shown as text, whatever it looks like.
func TestPageShowsMarkupAsText(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	const evil = "<img src=x onerror=alert(1)>"
	f.change(func(f *fake) {
		f.keys[len(f.keys)-1].Key, f.keys[len(f.keys)-1].Waiters = evil, 1000
		f.conns[0].Address, f.conns[1].Name, f.conns[2].Owner = evil, evil, evil
		f.cycles[0].Waits[1].Name = evil
		f.cycles[0].Waits[0].WaitsFor = evil
	})
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#hot") + ".includes('<img') && " + text("#cycles") + ".includes('<img')")
	for _, row := range []string{"1", "2", "3"} {
		b.until(text("#connections tr[data-id='"+row+"']") + ".includes('<img')")
	}
	b.until(text("#cycles li:nth-child(2)") + ".includes('<img')")
	if eval[bool](b, "document.querySelector('img') !== null") {
		t.Error("a key became an element")
	}
	b.quiet()
}
