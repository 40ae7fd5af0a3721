package flame

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// serving is what all stacks of a loop begin with, from the outermost.
const serving = "runtime.goexit golang.org/x/sync/errgroup.(*Group).Go.func1 github.com/panjf2000/gnet/v2.(*eventloop).run "

// samples are stacks from the outermost, with the samples in them. In kernel are the frames that perf adds.
var samples = []struct {
	program, kernel string
	n               int64
}{
	{serving + "dreadlock/server.(*session).execute dreadlock/reactor.write golang.org/x/sys/unix.Write golang.org/x/sys/unix.write " +
		"syscall.Syscall syscall.RawSyscall6 internal/runtime/syscall/linux.Syscall6",
		"entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_write ksys_write tcp_sendmsg", 50},
	{serving + "golang.org/x/sys/unix.EpollWait syscall.Syscall6 syscall.RawSyscall6 internal/runtime/syscall/linux.Syscall6",
		"entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_epoll_pwait", 20},
	{serving + "runtime.gosched_m runtime.notesleep runtime.futex", "entry_SYSCALL_64_after_hwframe do_syscall_64", 10},
	{serving + "dreadlock/server.(*session).execute dreadlock/proto.(*Parser).Next bytes.IndexByte", "", 6},
	{serving + "dreadlock/server.(*session).execute dreadlock/lockmgr.(*Table).Lock runtime.mapaccess2", "", 4},
	{serving + "dreadlock/server.(*session).execute", "asm_sysvec_apic_timer_interrupt", 10},
}

func words(text string) []string { return strings.Fields(text) }

// pprofOf makes the profile of the samples that the Go runtime would.
func pprofOf(t *testing.T) io.Reader {
	t.Helper()
	raw := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		Period:     10_000_000,
	}
	functions := make(map[string]*profile.Location)
	for _, s := range samples {
		sample := &profile.Sample{Value: []int64{s.n, s.n * raw.Period}}
		for _, name := range slices.Backward(words(s.program)) {
			at := functions[name]
			if at == nil {
				id := uint64(len(functions) + 1)
				f := &profile.Function{ID: id, Name: name}
				at = &profile.Location{ID: id, Line: []profile.Line{{Function: f}}}
				functions[name] = at
				raw.Function, raw.Location = append(raw.Function, f), append(raw.Location, at)
			}
			sample.Location = append(sample.Location, at)
		}
		raw.Sample = append(raw.Sample, sample)
	}
	var out bytes.Buffer
	if err := raw.Write(&out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// perfOf makes what perf would print of the samples.
func perfOf() io.Reader {
	var out strings.Builder
	for _, s := range samples {
		for range s.n {
			out.WriteString("\n")
			for _, name := range slices.Backward(words(s.kernel)) {
				out.WriteString("\tffffffff813a2413 " + name + "\n")
			}
			for _, name := range slices.Backward(words(s.program)) {
				out.WriteString("\t           99b83 " + name + ".abi0\n")
				out.WriteString("\t           99b84 " + name + "\n")
			}
			out.WriteString("\n")
		}
	}
	return strings.NewReader(out.String())
}

// percents returns the shares as text, by name; system calls after a slash.
func percents(p *Profile) map[string]int {
	all := make(map[string]int)
	for _, s := range p.Shares() {
		name := s.Name
		if s.Call {
			name = "/" + name
		}
		all[name] = int(math.Round(percent(s.Time, p.Total())))
	}
	return all
}

func TestReadPprof(t *testing.T) {
	p, err := ReadPprof(pprofOf(t))
	if err != nil {
		t.Fatal(err)
	}
	if p.Total() != time.Second {
		t.Errorf("total %s", p.Total())
	}
	want := map[string]int{
		"kernel": 80, "/write": 50, "/epoll_wait": 20, "/futex": 10,
		"sessions": 10, "parser": 6, "Go runtime": 4, "gnet": 0, "loops, mailboxes, wheel": 0, "lock table": 0,
	}
	checkShares(t, p, want)
}

// With perf the time in an interrupt is the kernel's, and the functions of the kernel are there.
func TestReadPerf(t *testing.T) {
	p, err := ReadPerf(perfOf(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if p.Total() != time.Second {
		t.Errorf("total %s", p.Total())
	}
	want := map[string]int{
		"kernel": 90, "/write": 50, "/epoll_wait": 20, "/futex": 10, "/" + Interrupts: 10,
		"sessions": 0, "parser": 6, "Go runtime": 4, "gnet": 0, "loops, mailboxes, wheel": 0, "lock table": 0,
	}
	checkShares(t, p, want)
	var names []string
	for _, f := range p.Stacks[0].Frames {
		names = append(names, f.Name)
	}
	if got := strings.Join(names[len(names)-4:], " "); got != "dreadlock/reactor.write write ksys_write tcp_sendmsg" {
		t.Errorf("the stack of a write ends with %s", got)
	}
}

func checkShares(t *testing.T, p *Profile, want map[string]int) {
	t.Helper()
	got := percents(p)
	for name, percent := range want {
		if got[name] != percent {
			t.Errorf("%s: %d %%, want %d", name, got[name], percent)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBadProfiles(t *testing.T) {
	none := &profile.Profile{SampleType: []*profile.ValueType{{Type: "cpu", Unit: "nanoseconds"}}}
	heap := &profile.Profile{SampleType: []*profile.ValueType{{Type: "inuse_space", Unit: "bytes"}}}
	for name, raw := range map[string]*profile.Profile{"empty": none, "of memory": heap} {
		var out bytes.Buffer
		if err := raw.Write(&out); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPprof(&out); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadPprof(strings.NewReader("<html>")); !errors.Is(err, ErrProfile) {
		t.Errorf("a page: %v", err)
	}
	for _, text := range []string{"", "no address\n"} {
		if _, err := ReadPerf(strings.NewReader(text), 100); !errors.Is(err, ErrProfile) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Every package of the daemon belongs to a part that is charged, and what it does is not charged to its caller.
func TestPartsCoverTheDaemon(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "dreadlock/cmd/dreadlock").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[Part]bool)
	for _, path := range words(string(out)) {
		part := PartOf(path + ".(*thing).method")
		seen[part] = true
		if strings.HasPrefix(path, "dreadlock/") && part == Library {
			t.Errorf("%s belongs to no part", path)
		}
	}
	for part := range parts {
		if !seen[part] && part != Kernel {
			t.Errorf("no package of the daemon belongs to %s", part)
		}
	}
	for function, want := range map[string]Part{
		"dreadlock/server.(*session).Data":       Session,
		"dreadlock/server/admin.(*Server).serve": Rest,
		"dreadlock/reactor.(*Wheel).advance":     Reactor,
		"main.main":                              Rest,
		"runtime.memmove":                        Runtime,
		"internal/runtime/maps.h1":               Runtime,
		"memeqbody":                              Runtime,
		"github.com/panjf2000/gnet/v2/pkg/netpoll.(*Poller).Polling": Gnet,
		"crypto/tls.(*Conn).Read":                                    TLS,
		"runtimes/x.F":                                               Library,
	} {
		if got := PartOf(function); got != want {
			t.Errorf("%s: %s, want %s", function, got, want)
		}
	}
}

// box is an element of a picture.
type box struct {
	Title string `xml:"title"`
	Rect  struct {
		X     float64 `xml:"x,attr"`
		Y     int     `xml:"y,attr"`
		Width float64 `xml:"width,attr"`
	} `xml:"rect"`
}

// The picture is well-formed, and the boxes of every row lie beside one another on those of the row below, which they nowhere overhang.
func TestDraw(t *testing.T) {
	p, err := ReadPerf(perfOf(), 100)
	if err != nil {
		t.Fatal(err)
	}
	text := Draw("a <title> & more", p)
	var picture struct {
		Title string `xml:"title"`
		Boxes []box  `xml:"g"`
	}
	if err := xml.Unmarshal([]byte(text), &picture); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if picture.Title != "a <title> & more" || strings.Contains(text, "<script") {
		t.Errorf("title %q", picture.Title)
	}
	rows := make(map[int][]box)
	for _, b := range picture.Boxes {
		rows[b.Rect.Y] = append(rows[b.Rect.Y], b)
	}
	lowest := slices.MaxFunc(picture.Boxes, func(a, b box) int { return a.Rect.Y - b.Rect.Y })
	if lowest.Rect.Width != width || len(rows[lowest.Rect.Y]) != 1 || lowest.Title != "all: 100.0 %" {
		t.Errorf("at the bottom: %+v", lowest)
	}
	const hair = 0.011 // of rounding
	for y, row := range rows {
		end := 0.0
		for _, b := range row { // drawn from left to right
			if b.Rect.X < end-hair {
				t.Errorf("%s overlaps the box beside it", b.Title)
			}
			end = b.Rect.X + b.Rect.Width
			if y != lowest.Rect.Y && !slices.ContainsFunc(rows[y+rowHeight], func(below box) bool {
				return b.Rect.X >= below.Rect.X-hair && end <= below.Rect.X+below.Rect.Width+hair
			}) {
				t.Errorf("%s stands on nothing", b.Title)
			}
		}
	}
	var write, calls float64
	for _, b := range picture.Boxes {
		if strings.HasPrefix(b.Title, "write: ") {
			write += b.Rect.Width
		}
		if strings.HasPrefix(b.Title, "epoll_wait: ") || strings.HasPrefix(b.Title, "futex: ") {
			calls += b.Rect.Width
		}
	}
	if write != width*0.5 || calls != width*0.3 {
		t.Errorf("write has %g, epoll_wait and futex have %g of %g", write, calls, width)
	}
	for _, part := range []string{"errgroup.(*Group).Go.func1: 100.0 %", "gnet.(*eventloop).run: 100.0 %", "ksys_write › tcp_sendmsg: 50.0 %"} {
		if !slices.ContainsFunc(picture.Boxes, func(b box) bool { return b.Title == part }) {
			t.Errorf("no box %q in\n%s", part, text)
		}
	}
}

func TestWriteShares(t *testing.T) {
	p, err := ReadPprof(pprofOf(t))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := WriteShares(&out, p.Shares(), p.Total(), 10*time.Microsecond); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"80.0 %  8.00 us  kernel\n", "20.0 %  2.00 us    of which epoll_wait\n", "0.0 %  0.00 us  gnet\n"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
}
