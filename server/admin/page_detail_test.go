package admin

import (
	"fmt"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"

	"dreadlock/server/api"
)

func TestPageKey(t *testing.T) {
	f := newFake()
	f.change(func(f *fake) {
		i := slices.IndexFunc(f.keys, func(k api.Key) bool { return k.Key == "k000" })
		f.keys[i].Queue[2].TimeoutSeconds = 9223372036 // what is taken for ever
	})
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.click("#hot tbody tr:first-child a.key")
	b.until(text("#detail-title") + " === 'Key k000'")
	for _, fact := range []string{"#1 ann@build7", "10.0.0.1:40001", "deploy", fmt.Sprint(firstToken)} {
		b.until(text("#facts") + fmt.Sprintf(".includes(%q)", fact))
	}
	b.until("document.querySelectorAll('#queue tbody tr').length === 12")
	b.until(text("#queue tbody tr:nth-child(1)") + ".includes('#2 10.0.0.2:40002')")
	b.until(text("#queue tbody tr:nth-child(2)") + ".includes('#3 bob@build8\\nbuild8.example, 10.0.0.3:40003, owner Release7')")
	b.until(text("#queue tbody tr:nth-child(1) td:nth-child(4)") + " === 'in 1 h 59 min'")
	b.until(text("#queue tbody tr:nth-child(3) td:nth-child(4)") + " === 'never'")
	if !eval[bool](b, "document.activeElement === document.querySelector('#detail-title')") {
		t.Error("the title of the key does not have the focus")
	}

	// To its holder, back, and close.
	b.click("#facts a.who")
	b.until(text("#detail-title") + " === 'Connection 1' && " + text("#holds") + ".includes('k000')")
	for _, fact := range []string{"ann@build7", "10.0.0.1:40001", "deploy"} {
		b.until(text("#facts") + fmt.Sprintf(".includes(%q)", fact))
	}
	b.do(chromedp.NavigateBack())
	b.until(text("#detail-title") + " === 'Key k000' && " + text("#queue") + " !== ''")
	b.click("#close")
	b.until(text("#detail") + " === ''")
	b.quiet()
}

// A client may take another name while it is looked at.
func TestPageNewName(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/#key=k000")
	shows := func(name string) {
		t.Helper()
		for _, place := range []string{"#facts", "#hot tbody tr:first-child", "#connections tbody tr:first-child"} {
			b.until(text(place) + fmt.Sprintf(".includes('#1 %s')", name))
		}
		b.until(text("#queue tbody tr:first-child") + fmt.Sprintf(".includes('#2 %s')", name))
	}
	rename := func(name string) {
		f.change(func(f *fake) {
			k := &f.keys[slices.IndexFunc(f.keys, func(k api.Key) bool { return k.Key == "k000" })]
			k.Queue = slices.Clone(k.Queue) // others may have a copy
			f.conns[0].Name, k.Holder.Name, k.Queue[0].Name = name, name, name
		})
	}
	b.until(text("#connections") + " !== ''")
	eval[bool](b, "document.querySelector('#connections-section').scrollIntoView(), true") // what is out of sight is not asked for
	rename("carol")
	shows("carol")
	rename("dave")
	shows("dave")
	rename("")
	shows("10.0.0.")
	b.quiet()
}

func TestPageKick(t *testing.T) {
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/#key=k000")
	b.click("#acts button.kick")
	b.until(text("#act") + ".includes('Kick connection 1?')")
	b.until(text("#act") + ".includes('It frees 1 key (k000)')")
	b.until(text("#act-who") + ".startsWith('ann@build7, 10.0.0.1:40001, owner deploy, connected for')")
	if !eval[bool](b, "document.activeElement.textContent === 'Cancel'") {
		t.Error("the harmless button does not have the focus")
	}

	b.click("#act button[value='']")
	b.until("!document.querySelector('#act').open")
	b.click("#acts button.kick")
	b.until(text("#act") + " !== ''")
	b.press("\x1b")
	b.until("!document.querySelector('#act').open")
	if kicked := f.kicked(); kicked != nil {
		t.Fatalf("kicked without a confirmation: %v", kicked)
	}

	b.click("#acts button.kick")
	b.until(text("#act") + " !== ''")
	b.quiet()
	b.hear()
	b.click("#act button.danger")
	b.until("heard === 'Connection 1 is closed, 1 key freed.'")
	b.until(text("#detail-text") + " === 'Nobody holds this key now.'")
	if kicked := f.kicked(); !slices.Equal(kicked, []api.ConnectionID{1}) {
		t.Errorf("kicked: %v", kicked)
	}
}

// A release names the holder and the token that were shown, so that it takes the key from nobody else.
func TestPageRelease(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	key := &f.keys[slices.IndexFunc(f.keys, func(k api.Key) bool { return k.Key == "k000" })]
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/#key=k000")
	b.until(text("#facts") + " !== ''")
	b.click("#acts button:nth-child(2)")
	b.until(text("#act") + ".includes('Release key k000?') && " + text("#act") + ".includes('The key goes to the first waiter, #2 10.0.0.2:40002.')")
	b.until(text("#act-who") + ".startsWith('#1 ann@build7 has held it for')")
	b.click("#act button[value='']")
	b.until("!document.querySelector('#act').open")
	b.hear()
	for _, later := range []func(*fake){
		func(*fake) { key.Token++ },
		func(*fake) { key.Holder.Connection++ },
	} {
		b.click("#acts button:nth-child(2)")
		b.until("document.querySelector('#act').open")
		f.change(later) // it is granted again while the question is open
		eval[string](b, "heard = $('message').textContent = ''")
		b.click("#act button.danger")
		b.until("heard.includes('the key has changed hands')")
	}
	b.click("#acts button:nth-child(2)")
	b.until("document.querySelector('#act').open")
	eval[string](b, "heard = ''")
	b.click("#act button.danger")
	b.until("heard === 'Key k000 is released.' && " + text("#facts") + ".includes('#2 10.0.0.2:40002')")
}
