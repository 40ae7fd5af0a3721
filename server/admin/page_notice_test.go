package admin

import (
	"fmt"
	"slices"
	"testing"

	"dreadlock/server/api"
)

// What an operator must know is said on the page and in its title.
func TestPageNotices(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#health") + " === 'serving'")
	b.until(text("#about") + ".includes('3 of at most 1,024 MiB of memory') && " + text("#memory") + " === '' && " + text("#delay") + " === ''")
	b.until("document.title === '(1 deadlock) lock7:6001 dreadlock' && " + text("#memory") + " === ''")
	f.change(func(f *fake) { f.status.MemoryBytes = f.status.MemoryLimitBytes / 100 * 95 })
	b.until(text("#memory") + ".startsWith('94 % of the memory') && document.title === '(1 deadlock, memory 94 %) lock7:6001 dreadlock'")

	f.change(func(f *fake) { f.status.MemoryBytes, f.status.GrantsInSeconds, f.status.LockDelaySeconds = 0, 8.5, 15 })
	b.until(text("#delay-text") + ".startsWith('The first key is granted in 8.5 s:') && " + text("#delay-text") + ".includes('has 15 s')")
	b.until(text("#health") + " === 'grants nothing yet' && document.title === '(grants nothing yet, 1 deadlock) lock7:6001 dreadlock'")
	b.quiet()
}

// A key whose holder has ended is free after a while. Nobody is to be kicked then. What may have been held before the start has no
// holder that could be named.
func TestPageLockDelay(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	key := &f.keys[slices.IndexFunc(f.keys, func(k api.Key) bool { return k.Key == "k000" })]
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/#key=k000")
	b.until(text("#facts") + ".includes('held by') && " + text("#acts") + " !== ''")
	eval[bool](b, "document.querySelector('#keys-section').scrollIntoView(), true") // what is out of sight is not asked for
	f.change(func(*fake) { key.FreesInSeconds = 8 })
	b.until(text("#found-text") + " === '33 keys are held, or free soon.'")
	for _, list := range []string{"hot", "found"} {
		b.until(text("#"+list+" tbody tr[data-id=k000]") + ".includes('#1 ann@build7\\nhas ended, free in 8.0 s')")
	}
	b.until(text("#facts") + ".includes('held last by') && " + text("#frees") + ".startsWith('8.0 s') && " + text("#acts") + " === ''")
	holder := key.Holder
	f.change(func(*fake) { key.Holder = api.Peer{} })
	for _, list := range []string{"hot", "found"} {
		b.until(text("#"+list+" tbody tr[data-id=k000]") + ".includes('nobody\\nfree in 8.0 s') && " + text("#"+list+" tbody tr[data-id=k000] td:last-child") + " === '–'")
	}
	b.until("!" + text("#facts") + ".includes('held last by') && " + text("#frees") + ".includes('before the start') && " + text("#acts") + " === ''")
	f.change(func(*fake) { key.Holder, key.FreesInSeconds = holder, 0 })
	b.until("!" + text("#hot") + ".includes('has ended') && " + text("#acts") + ".startsWith('Kick holder')")
	b.quiet()
}

// The history of a key is shown, and goes on, also if nobody holds the key. That of another key is not mixed with it.
func TestPageHistory(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	b.open(serve(t, Config{Source: newFake()}) + "/")
	b.until(text("#health") + " === 'serving'")
	eval[[]any](b, somePast)
	b.typed("#contains", "gone\r")
	b.until(text("#detail-text") + " === 'Nobody holds this key now.'")
	rows := func(want int) string {
		return fmt.Sprintf("document.querySelectorAll('#history tbody tr').length === %d", want)
	}
	b.until(rows(3) + " && " + text("#history tbody tr:nth-child(1)") + ".includes('#1 ann@build7')")
	b.until(text("#history tbody tr:nth-child(2)") + ".includes('lost it\\nheld 40 s, kicked, by uid 0 pid 4711')")
	b.until(text("#history tbody tr:nth-child(3)") + ".startsWith('2026-11-28T')")
	eval[string](b, `(fetch = (real => async (url, ...rest) => !url.includes('since=9') ? real(url, ...rest)
		: Response.json({events: [{seq: 11, time: '2026-11-28T17:00:00Z', kind: 'released', key: 'gone', connection: 1, address: 'a', held_seconds: 9}], next: 11, lost: 0,
			oldest: '2026-11-28T16:59:00Z'}))(fetch), '')`)
	b.until(rows(4) + " && " + text("#history tbody tr:nth-child(1)") + ".includes('gave it back\\nheld 9.0 s')")
	b.until(text("#past-text") + " === 'The daemon remembers what has happened since ' + instant('2026-11-28T16:03:12Z') + '.'")
	eval[string](b, "(window.events = [], location.hash = 'connection=1')")
	b.until(text("#detail-title") + " === 'Connection 1' && " + text("#past-text") + ".startsWith('Nothing that the daemon remembers') && " + rows(0))
}

// Where no key is held, the lines that lock one are for the ways in that there are.
func TestPageHow(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	f.change(pageStates[0].change)
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	for _, c := range []struct {
		listen []string
		want   string
	}{
		{[]string{"tcp://[::]:6001"}, `dreadlockctl lock hello --server lock7:6001 -- sleep 60\n(echo lock hello 5000; sleep 60) | nc -C lock7 6001`},
		{[]string{"tcp://[2001:db8::1]:7"}, `dreadlockctl lock hello --server [2001:db8::1]:7 -- sleep 60\n(echo lock hello 5000; sleep 60) | nc -C 2001:db8::1 7`},
		{[]string{"tls://:6002?allow=10.0.0.0/8"}, `dreadlockctl lock hello --server tls://lock7:6002 -- sleep 60`},
		{[]string{"tls://0.0.0.0:6002", "unix:///run/l.sock?mode=0660"},
			`dreadlockctl lock hello --server tls://lock7:6002 -- sleep 60\n(echo lock hello 5000; sleep 60) | nc -CU /run/l.sock`},
	} {
		f.change(func(f *fake) { f.status.Listen = c.listen })
		b.until(text("#how-lines") + fmt.Sprintf(" === '%s'", c.want))
	}
	for _, held := range []api.Status{{HeldKeys: 1}, {RestingKeys: 1}, {GrantsInSeconds: 1}} {
		f.change(func(f *fake) {
			f.status.HeldKeys, f.status.RestingKeys, f.status.GrantsInSeconds = held.HeldKeys, held.RestingKeys, held.GrantsInSeconds
		})
		b.until(text("#how") + " === ''")
		f.change(pageStates[0].change)
		f.change(func(f *fake) { f.status.GrantsInSeconds = 0 })
		b.until(text("#how") + " !== ''")
	}
	b.quiet()
}

// The detail is closed by a key, and the focus is back where it was.
func TestPageKeyboard(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	b.open(serve(t, Config{Source: newFake()}) + "/")
	b.click("#found tbody tr[data-id=k003] a.key")
	b.until(text("#detail-title") + " === 'Key k003' && document.activeElement.id === 'detail-title' && " + text("#acts") + " !== ''")
	b.click("#acts button")
	b.until("document.querySelector('#act').open")
	b.press("\x1b")
	b.until("!document.querySelector('#act').open && " + text("#detail-title") + " !== ''")
	b.press("\x1b")
	b.until(text("#detail") + " === '' && document.activeElement === document.querySelector('#found tbody tr[data-id=k003] a.key')")
	b.quiet()
}
