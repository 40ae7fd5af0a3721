package noise

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"dreadlock/proto/prototest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTest() (*Log, *bytes.Buffer) {
	var text bytes.Buffer
	return New(zerolog.New(&text)), &text
}

func at(text string) Source { return Address(netip.MustParseAddr(text)) }

// line is a line of the log.
type line struct {
	Message, From, Warning string
	Lines                  int
	Quiet                  bool
}

// take returns the lines that were written since it was called last.
func take(t *testing.T, text *bytes.Buffer) (lines []line) {
	t.Helper()
	for _, one := range strings.Split(strings.TrimSpace(text.String()), "\n") {
		if one == "" {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(one), &l); err != nil {
			t.Fatalf("%q: %v", one, err)
		}
		lines = append(lines, l)
	}
	text.Reset()
	return lines
}

// A noisy source gets its lines, and the log says once how many more there were.
func TestOneNoisy(t *testing.T) {
	log, text := newTest()
	for range 3 { // periods
		for range 40 {
			log.Event(zerolog.WarnLevel, at("10.0.0.1"), "bad").Send()
		}
		log.Event(zerolog.WarnLevel, at("10.0.0.1"), "worse").Send() // of another kind
		log.Event(zerolog.WarnLevel, at("10.0.0.2"), "bad").Send()   // of somebody else
		log.Flush()
		lines := take(t, text)
		if len(lines) != linesPerSource+3 {
			t.Fatalf("%d lines, want %d: %v", len(lines), linesPerSource+3, lines)
		}
		want := line{"more of this were left out of the log", "10.0.0.1", "bad", 40 - linesPerSource, false}
		if lines[linesPerSource].Message != "worse" || lines[linesPerSource+1].Message != "bad" || lines[linesPerSource+2] != want {
			t.Errorf("%+v", lines[linesPerSource:])
		}
	}
	log.Flush()
	if lines := take(t, text); len(lines) > 0 {
		t.Errorf("nothing was left out, and it says %v", lines)
	}
}

// A thousand noisy addresses do not flood the log, and do not hide the one line of another one. Neither do more than are told
// apart, once they are known.
func TestManyNoisy(t *testing.T) {
	for _, sources := range []int{1000, maxSources - 1} {
		log, text := newTest()
		for second := range 3 {
			for range 3 {
				for i := range sources {
					log.Event(zerolog.WarnLevel, at(fmt.Sprintf("10.0.%d.%d", i/256, i%256)), "bad").Send()
				}
			}
			log.Event(zerolog.WarnLevel, at("192.0.2.1"), "bad").Bool("quiet", true).Send()
			log.Flush()
			lines := take(t, text)
			if most := linesOfQuiet + linesOfNoisy + namedSources + 1; len(lines) > most {
				t.Errorf("%d sources, second %d: %d lines, want at most %d", sources, second, len(lines), most)
			}
			heard, left, written := false, 0, 0
			for _, l := range lines {
				heard = heard || l.Quiet
				left += l.Lines
				if l.Message == "bad" {
					written++
				}
			}
			if second > 0 && !heard { // in the first one all are new
				t.Errorf("%d sources, second %d: the line of a quiet one is left out", sources, second)
			}
			if written+left != 3*sources+1 {
				t.Errorf("%d sources, second %d: %d lines and %d left out, want %d", sources, second, written, left, 3*sources+1)
			}
		}
	}
}

// However many sources there are, the table is bounded, and it is empty again when they are quiet.
func TestTableIsBounded(t *testing.T) {
	log, text := newTest()
	for i := range 3 * maxSources {
		for range 2 {
			log.Event(zerolog.WarnLevel, at(fmt.Sprintf("2001:db8:%x::1", i)), "bad").Send()
		}
	}
	if len(log.lines) != maxSources {
		t.Errorf("%d sources in the table, want %d", len(log.lines), maxSources)
	}
	log.Flush()
	written, left := 0, 0
	for _, l := range take(t, text) {
		left += l.Lines
		if l.Message == "bad" {
			written++
		}
	}
	if written+left != 6*maxSources {
		t.Errorf("%d lines and %d left out, want %d", written, left, 6*maxSources)
	}
	log.Flush()
	if len(log.lines) > 0 {
		t.Errorf("%d sources are left in the table", len(log.lines))
	}
}

// What the level of the log leaves out does not count.
func TestLevel(t *testing.T) {
	var text bytes.Buffer
	log := New(zerolog.New(&text).Level(zerolog.InfoLevel))
	for range 100 {
		log.Event(zerolog.DebugLevel, at("10.0.0.1"), "bad").Send()
	}
	log.Event(zerolog.WarnLevel, at("10.0.0.1"), "bad").Send()
	log.Flush()
	if lines := take(t, &text); len(lines) != 1 {
		t.Errorf("%v", lines)
	}
}

func TestSource(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3:80": "10.1.2.3", "[::ffff:10.1.2.3]:80": "10.1.2.3", "[2001:db8::1:2]:80": "2001:db8::/64", "[fe80::1%lo]:80": "fe80::/64",
	} {
		if got := Remote(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text))).String(); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	if at("2001:db8::1") != at("2001:db8::2") || at("10.0.0.1") == at("10.0.0.2") {
		t.Error("one host is not one source, or two are")
	}
	if Remote(&net.UnixAddr{}) != (Source{}) || Socket("unix:/a").String() != "unix:/a" || Socket("unix:/a") == Socket("unix:/b") {
		t.Error("Unix sockets are confused")
	}
}

// signalling is a writer that tells of lines with a text.
type signalling struct {
	text string
	seen chan struct{}
	once sync.Once
}

func (s *signalling) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		s.once.Do(func() { close(s.seen) })
	}
	return len(p), nil
}

// Without further lines it says by itself what was left out.
func TestRun(t *testing.T) {
	out := &signalling{text: "left out", seen: make(chan struct{})}
	log := New(zerolog.New(out))
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { log.Run(ctx) })
	for range linesPerSource + 1 {
		log.Event(zerolog.WarnLevel, at("10.0.0.1"), "bad").Send()
	}
	bounded, cancel := context.WithTimeout(ctx, prototest.Patience)
	defer cancel()
	select {
	case <-out.seen:
	case <-bounded.Done():
		t.Error("it does not say what was left out")
	}
	stop()
	running.Wait()
}

// A line that is left out costs no allocation.
func BenchmarkLeftOut(b *testing.B) {
	log := New(zerolog.New(&bytes.Buffer{}))
	from := at("10.0.0.1")
	for range linesPerSource {
		log.Event(zerolog.WarnLevel, from, "bad").Send()
	}
	b.ReportAllocs()
	for b.Loop() {
		log.Event(zerolog.WarnLevel, from, "bad").Str("a", "b").Send()
	}
}
