package admin

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/certs"
)

// withEvents returns a server in which six things have happened, of which it has kept the last four.
func withEvents() *fake {
	f := newFake()
	at := time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)
	for i := range 6 {
		f.happen(api.Event{Time: at, Kind: api.EventGranted, Key: fmt.Sprintf("k%d", i%2), Connection: api.ConnectionID(i), Token: firstToken})
	}
	return f
}

func TestEvents(t *testing.T) {
	h := handlerOf(withEvents())
	for target, want := range map[string]struct{ events, next, lost int }{
		"":                  {4, 6, 0},
		"?limit=2":          {2, 6, 0},
		"?since=0":          {4, 6, 2},
		"?since=4":          {2, 6, 0},
		"?since=5&limit=10": {1, 6, 0},
		"?key=k1":           {2, 6, 0},
		"?key=k0&since=5":   {0, 6, 0},
		"?key=no&since=":    {0, 6, 0},
		"?connection=3":     {1, 6, 0},
		"?connection=17":    {0, 6, 0},
	} {
		got := get[api.EventPage](t, h, "/api/v1/events"+target)
		if len(got.Events) != want.events || got.Next != uint64(want.next) || got.Lost != uint64(want.lost) {
			t.Errorf("%s: %+v, want %+v", target, got, want)
		}
	}
	got := get[api.EventPage](t, h, "/api/v1/events?since=5").Events[0]
	if got.Token != firstToken || got.Kind != api.EventGranted || got.Key != "k1" || got.Connection != 5 || got.Seq != 6 {
		t.Errorf("event: %+v", got)
	}
}

// kickAt has a connection of the server kicked by a request to one of its addresses, and returns who asked for it.
func kickAt(t *testing.T, f *fake, where string, id api.ConnectionID, config *tls.Config) string {
	t.Helper()
	r := newRequester(t, where, config)
	response, err := r.client.Post(fmt.Sprintf("%s/api/v1/connections/%d/kick", r.base, id), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if response.StatusCode != http.StatusOK || len(f.kickers) == 0 {
		t.Fatalf("kick at %s: %s", where, response.Status)
	}
	return f.kickers[len(f.kickers)-1]
}

// The server is told who asks for a kick: the address, and the user where the kernel or a certificate says so.
func TestWhoKicks(t *testing.T) {
	ca := prototest.NewCA(t)
	certFile, keyFile := ca.Files(ca.Server("127.0.0.1"))
	store, err := certs.Load(certs.Files{Cert: certFile, Key: keyFile, ClientCA: ca.File()}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	f := newFake()
	socket := shortDir(t) + "/admin.sock"
	server, err := Listen(t.Context(), Config{
		Listen: []string{"127.0.0.1:0", "unix://" + socket, "https://127.0.0.1:0"}, Certificates: store, Source: f, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, server)
	urls := server.Addresses()
	if by := kickAt(t, f, urls[0], 1, nil); !strings.HasPrefix(by, "127.0.0.1:") || strings.Contains(by, " ") {
		t.Errorf("by TCP: %q", by)
	}
	if by, want := kickAt(t, f, urls[1], 2, nil), fmt.Sprintf("unix:%s uid %d pid %d", socket, os.Getuid(), os.Getpid()); by != want {
		t.Errorf("by a Unix socket: %q, want %q", by, want)
	}
	config := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("ann")}}
	if by := kickAt(t, f, urls[2], 3, config); !strings.HasPrefix(by, "127.0.0.1:") || !strings.HasSuffix(by, " ann") {
		t.Errorf("by TLS: %q", by)
	}
	if kicked := f.kicked(); !slices.Equal(kicked, []api.ConnectionID{1, 2, 3}) {
		t.Errorf("kicked: %v", kicked)
	}
}
