package admin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// patience is the time that a test waits for what must happen. Only a fault takes longer.
const patience = 30 * time.Second

// browser is a real one, headless, with an empty profile. The first test that needs it starts it.
var browser struct {
	once sync.Once
	ctx  context.Context
	err  error
	stop func()
}

// stopBrowser ends the browser if there is one.
func stopBrowser() {
	if browser.stop != nil {
		browser.stop()
	}
}

func startBrowser() {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		return
	}
	profile, err := os.MkdirTemp("", "dreadlock-admin")
	if err != nil {
		browser.err = err
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.NoSandbox, // it does not work for root
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	browser.ctx = ctx
	browser.stop = func() {
		_ = chromedp.Cancel(ctx) // waits until it has ended
		cancel()
		cancelAllocator()
		_ = os.RemoveAll(profile)
	}
	browser.err = chromedp.Do(ctx)
}

// skipIfShort skips a test in the short form, which runs only the tests of what most people do on the page.
func skipIfShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("in the short form")
	}
}

// amend lets a test say which events the page gets: the fake server keeps none.
const amend = `
	window.events = [];
	window.fetch = (real => async (url, ...rest) => {
		if (String(url).startsWith('api/v1/events')) return Response.json({events: url.includes('since') ? [] : events, next: 9, lost: 0, oldest: events[0]?.time});
		return real(url, ...rest);
	})(fetch);
`

// tab is a page in the browser, with storage of its own.
type tab struct {
	t       *testing.T
	ctx     context.Context
	mu      sync.Mutex
	console []string // warnings, errors and exceptions
}

// openTab opens an empty page. The test is skipped where there is no browser.
func openTab(t *testing.T) *tab {
	t.Helper()
	browser.once.Do(startBrowser)
	if browser.err != nil {
		t.Fatalf("start the browser: %v", browser.err)
	}
	if browser.ctx == nil {
		t.Skip("the page is NOT tested: no chromium, chromium-browser or google-chrome in PATH (apt-get install chromium)")
	}
	ctx, cancel := chromedp.NewContext(browser.ctx, chromedp.WithNewBrowserContext())
	tab := &tab{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	var reader sync.WaitGroup
	reader.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			tab.mu.Lock()
			tab.console = append(tab.console, strings.TrimSpace(fmt.Sprint(m.Type, ": ", m.Text)))
			tab.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		reader.Wait()
	})
	tab.do()
	begin := devpage.AddScriptToEvaluateOnNewDocumentParams{Source: amend}
	if _, err := chromedp.Call(ctx, devpage.AddScriptToEvaluateOnNewDocument, begin); err != nil {
		t.Fatalf("amend the answers: %v", err)
	}
	return tab
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v; console: %q", err, b.said())
	}
}

// said returns the messages in the console.
func (b *tab) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.console...)
}

// quiet fails the test if there is a message in the console: an exception, a request that failed, something that the
// page's policy forbids.
func (b *tab) quiet() {
	b.t.Helper()
	if said := b.said(); len(said) > 0 {
		b.t.Errorf("console: %q", said)
	}
}

func (b *tab) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// size gives the window a size and a colour scheme.
func (b *tab) size(width, height int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height))
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		b.t.Fatalf("colour scheme: %v", err)
	}
}

// click clicks on an element as soon as it is visible and nothing covers it. It looks and clicks in one turn of the page:
// a click of the mouse is lost if the element moves in between.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`(e => {
		if (!e?.checkVisibility() || e.disabled) return false;
		e.scrollIntoView({block: 'center', behavior: 'instant'});
		const box = e.getClientRects()[0];
		if (!e.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2))) return false;
		e.focus();
		e.click();
		return true;
	})(document.querySelector(%q))`, selector))
}

// hear makes the page keep its messages, which it shows for a few seconds only.
func (b *tab) hear() {
	b.t.Helper()
	eval[bool](b, `(said => {
		window.heard = '';
		new MutationObserver(() => heard += said.textContent).observe(said, {childList: true});
		return true;
	})(document.querySelector('#message'))`)
}

func (b *tab) typed(selector, text string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (b *tab) press(key string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(key))
}

// eval returns the value of an expression. For a promise it waits, longer than until does.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 2*patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v; console: %q", expression, err, b.said())
	}
	return value
}

// until waits until an expression is true in the page.
func (b *tab) until(condition string) {
	b.t.Helper()
	const look = `new Promise(done => {
		const end = performance.now() + %d;
		const look = () => (%s) ? done(true) : performance.now() > end ? done(false) : setTimeout(look, 10);
		look();
	})`
	if !eval[bool](b, fmt.Sprintf(look, patience.Milliseconds(), condition)) {
		b.t.Fatalf("it does not become true: %s\nconsole: %q\npage:\n%s", condition, b.said(), eval[string](b, "document.body.innerText"))
	}
}

// text returns an expression for the visible text of an element, empty if it is hidden.
func text(selector string) string {
	return fmt.Sprintf("(e => e?.checkVisibility() ? e.innerText : '')(document.querySelector(%q))", selector)
}
