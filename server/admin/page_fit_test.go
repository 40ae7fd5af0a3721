package admin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"dreadlock/server/api"
)

// pageState is what the page shows in a test of its looks.
type pageState struct {
	name   string
	change func(*fake) // of the server, nil for none
	at     string      // the fragment of the address
	then   func(*tab, *fake)
	shown  string // true when the page shows it
}

// somePast is a history of a key.
const somePast = `window.events = [
	{seq: 3, time: '2026-11-28T16:03:12Z', kind: 'granted', key: 'k000', connection: 4, address: '10.0.0.4:40004', token: '1'},
	{seq: 5, time: '2026-11-28T16:03:52Z', kind: 'lost', key: 'k000', connection: 4, address: '10.0.0.4:40004', held_seconds: 40, reason: 'kicked', by: 'uid 0 pid 4711'},
	{seq: 6, time: '2026-11-28T16:03:52Z', kind: 'granted', key: 'k000', connection: 1, address: '10.0.0.1:40001', name: 'ann@build7', owner: 'deploy', waited_seconds: 200},
]`

var pageStates = []pageState{
	{
		name: "empty", shown: text("#how-lines") + ".includes('nc -C 127.0.0.1 6001')",
		change: func(f *fake) {
			f.keys, f.conns, f.cycles = nil, nil, nil
			f.status.HeldKeys, f.status.RestingKeys, f.status.Waiters, f.status.Connections = 0, 0, 0, 0
		},
	},
	{name: "busy", change: func(f *fake) { f.cycles = nil }, shown: text("#hot") + " !== '' && " + text("#connections") + " !== ''"},
	{
		name: "key", at: "#key=k000", shown: text("#queue") + " !== '' && " + text("#history") + ".includes('40 s')",
		change: func(f *fake) {
			i := slices.IndexFunc(f.keys, func(k api.Key) bool { return k.Key == "k000" })
			f.keys[i].Queue[3].TimeoutSeconds = 9223372036
		},
	},
	{name: "connection", at: "#connection=1", shown: text("#holds") + " !== '' && " + text("#history") + " !== ''"},
	{name: "deadlock", shown: "document.querySelectorAll('#cycles svg .node').length === 3"},
	{
		name: "taken over", shown: text("#about") + ".includes('took over')",
		change: func(f *fake) {
			f.status.Takeover = &api.Takeover{At: f.status.Started, Count: 1, FromPID: 4_194_303, FromVersion: "v1.2.2-0.20261128112233-8ed5f5a00112+dirty", PauseSeconds: 1}
		},
	},
	{
		name: "fleet", shown: text("#daemons") + ".includes('two:6001') && " + text("#fleet-warnings") + " !== ''",
		change: func(f *fake) {
			f.status.Fleet = wellFleet()
			f.status.Fleet.Warnings = []string{"etcd does not compact its history"}
		},
	},
	{
		name: "out of touch", shown: text("#touch-text") + ".includes('cannot reach etcd')",
		then: func(_ *tab, f *fake) {
			f.change(func(f *fake) {
				f.status.Fleet = wellFleet()
				f.status.Fleet.InTouch, f.status.Fleet.Reason = false, "cannot reach etcd at http://a:2379: no answer within 1s"
				f.status.Fleet.Daemons = []api.FleetDaemon{}
			})
		},
	},
	{
		name: "drain", shown: text("#held") + ".includes('k029')",
		then: func(b *tab, f *fake) {
			if _, err := f.Drain(b.t.Context(), nil); err != nil {
				b.t.Error(err)
			}
		},
	},
	{
		name: "kick", at: "#key=k000", shown: "document.querySelector('#act').open",
		then: func(b *tab, _ *fake) { b.click("#acts button") },
	},
	{
		name: "error", shown: text("#alert") + " !== ''",
		then: func(_ *tab, f *fake) {
			f.change(func(f *fake) { f.err = fmt.Errorf("loop 1: %w", api.ErrUnavailable) })
		},
	},
}

// show brings the page into a state.
func (s *pageState) show(b *tab) {
	b.t.Helper()
	f := newFake()
	if s.change != nil {
		f.change(s.change)
	}
	b.open(serve(b.t, Config{Source: f}) + "/")
	eval[[]any](b, somePast)
	b.until(text("#health") + " === 'serving'")
	eval[string](b, fmt.Sprintf("location.hash = %q", s.at))
	if s.then != nil {
		s.then(b, f)
	}
	b.until(s.shown)
}

// axe is axe-core, which looks for what people who see little, or use no mouse, cannot use.
func axe(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("../../.ci/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Skip("the page is NOT tested for accessibility: no axe-core (npm ci --prefix .ci)")
	}
	return string(source)
}

// axe-core finds nothing to complain about, in any state and scheme, with a wide window and a narrow one. With the environment
// variable PAGE_PICTURES, pictures of what was looked at go into that directory.
func TestPageAccessible(t *testing.T) {
	skipIfShort(t)
	source := axe(t)
	pictures, widths := os.Getenv("PAGE_PICTURES"), []int64{390, 1440}
	if pictures != "" {
		widths = []int64{390, 820, 1100, 1440}
	}
	for _, state := range pageStates {
		t.Run(state.name, func(t *testing.T) {
			b := openTab(t)
			state.show(b)
			eval[bool](b, source+"; true")
			for _, scheme := range []string{"light", "dark"} {
				for _, width := range widths {
					b.size(width, 900, scheme)
					if pictures != "" {
						b.picture(filepath.Join(pictures, fmt.Sprintf("%s-%s-%d.png", state.name, scheme, width)))
					}
					for _, fault := range eval[[]string](b, `axe.run({resultTypes: ['violations']}).then(found => found.violations.flatMap(v =>
						v.nodes.map(n => v.id + ': ' + n.target + ': ' + n.html.slice(0, 200) + ': ' + n.failureSummary)))`) {
						t.Errorf("%s, %d px: %s", scheme, width, fault)
					}
				}
			}
		})
	}
}

// picture keeps what the page shows, whole.
func (b *tab) picture(path string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(path, shot, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// What can be entered or pressed is seen: its edge has three times the light of what is around it, or a third.
func TestPageEdges(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	pageStates[2].show(b)
	for _, scheme := range []string{"light", "dark"} {
		b.size(800, 900, scheme)
		low := eval[[]string](b, `(() => {
			const light = color => color.match(/[\d.]+/g).slice(0, 3).map(c => c / 255)
				.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
			const around = light(getComputedStyle(document.querySelector('section')).backgroundColor);
			return [...document.querySelectorAll('input[type=search], select, section > button, #acts button, form button')]
				.map(e => ({e, edge: light(getComputedStyle(e).borderTopColor)}))
				.map(({e, edge}) => ({e, ratio: (Math.max(edge, around) + 0.05) / (Math.min(edge, around) + 0.05)}))
				.filter(({ratio}) => !(ratio >= 3)).map(({e, ratio}) => e.outerHTML.slice(0, 100) + ' ' + ratio);
		})()`)
		if len(low) > 0 {
			t.Errorf("%s: %q", scheme, low)
		}
	}
	if plain := eval[int](b, "[...document.querySelectorAll('a')].filter(a => getComputedStyle(a).textDecorationLine !== 'underline').length"); plain > 0 {
		t.Errorf("%d links differ from text by nothing but their colour", plain)
	}
	levels := eval[[]int](b, "Array.from(document.querySelectorAll('h1, h2, h3, h4'), h => Number(h.localName[1]))")
	for i, level := range levels[1:] {
		if level > levels[i]+1 {
			t.Errorf("the headings skip a level: %v", levels)
			break
		}
	}
}

// Nothing is too wide for the window or sticks out of its card, however long keys, names and owners are.
func TestPageFits(t *testing.T) {
	skipIfShort(t)
	long := strings.Repeat("averylongkey", 700)
	name, owner := strings.Repeat("n", 128), strings.Repeat("o", 64) // the longest
	stretch := func(f *fake) {
		f.keys[4].Key, f.keys[4].Waiters = long, 1000
		f.keys[5].Key = strings.Repeat("k", 31)
		f.conns[0].Holds, f.conns[1].WaitsFor = []string{long, long[:40]}, long
		f.conns[0].Held = 2_000_000
		for i := range f.conns {
			f.conns[i].Name, f.conns[i].Owner, f.conns[i].ConnectedSeconds = name, owner, 1e7
		}
		for i := range f.keys {
			f.keys[i].Holder.Name, f.keys[i].Holder.Owner, f.keys[i].HeldSeconds, f.keys[i].LongestWaitSeconds = name, owner, 86399, 86399
			for j := range f.keys[i].Queue {
				f.keys[i].Queue[j].Name, f.keys[i].Queue[j].Owner = name, owner
			}
		}
		for i := range f.cycles[0].Waits {
			f.cycles[0].Waits[i].Name, f.cycles[0].Waits[i].Owner = name, owner
		}
		f.cycles[0].Waits[0].WaitsFor = long
	}
	widths := []int64{1600, 1440, 1366, 1280, 1200}
	for width := int64(1100); width >= 320; width -= 20 {
		widths = append(widths, width)
	}
	for _, at := range []string{"#key=" + long, "#connection=1"} {
		f := newFake()
		f.change(stretch)
		url := serve(t, Config{Source: f})
		b := openTab(t)
		b.open(url + "/" + at)
		if _, err := f.Drain(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		b.until(text("#held") + ".includes('averylongkey') && " + text("#found") + ".includes('averylongkey')")
		b.until(text("#cycles") + " !== '' && " + text("#facts") + " !== '' && " + text("#connections") + " !== ''")
		grounds := map[string]string{}
		for i, width := range widths {
			scheme := []string{"light", "dark"}[i%2]
			b.size(width, 740, scheme)
			for _, fault := range eval[[]string](b, `[
				...document.documentElement.scrollWidth > innerWidth ? ['the page is ' + document.documentElement.scrollWidth + ' px wide'] : [],
				...[...document.querySelectorAll('main > *, section, #plots li')].filter(e => e.scrollWidth > e.clientWidth)
					.map(e => (e.id || e.textContent.trim().slice(0, 30)) + ' sticks out by ' + (e.scrollWidth - e.clientWidth) + ' px'),
			]`) {
				t.Errorf("%s, %d px: %s", at[:5], width, fault)
			}
			grounds[scheme] = eval[string](b, "getComputedStyle(document.body).backgroundColor")
		}
		if grounds["light"] == grounds["dark"] {
			t.Errorf("backgrounds: %v", grounds)
		}
		b.quiet()
	}
}
