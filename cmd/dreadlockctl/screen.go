package main

import (
	"os"
	"strings"

	"golang.org/x/term"
)

// What a terminal is told, as all of them have understood it since the VT100 and xterm.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the alternate screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	bold        = "\x1b[1m"
	plain       = "\x1b[0m"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"

	ctrlC = '\x03' // a raw terminal sends it instead of a signal
)

// screen is a terminal that a view is drawn on. One goroutine uses it; another one reads the keys.
type screen struct {
	out   *os.File
	in    *os.File
	state *term.State // of the input before; nil if that is no terminal
	keys  <-chan byte // closed at the end of the input
}

// openScreen takes the terminal, until close gives it back as it was.
func openScreen(s *streams) (*screen, error) {
	sc := &screen{out: s.stdout, in: s.stdin}
	if term.IsTerminal(int(s.stdin.Fd())) {
		state, err := term.MakeRaw(int(s.stdin.Fd()))
		if err != nil {
			return nil, err
		}
		sc.state = state
		sc.keys = readKeys(s.stdin)
	}
	_, err := sc.out.WriteString(enterScreen)
	if err != nil {
		sc.close()
	}
	return sc, err
}

func (sc *screen) close() {
	_, _ = sc.out.WriteString(leaveScreen)
	if sc.state != nil {
		_ = term.Restore(int(sc.in.Fd()), sc.state)
	}
}

// readKeys reads as long as the process lives: nothing ends a read of a terminal.
func readKeys(in *os.File) <-chan byte {
	keys := make(chan byte)
	go func() {
		defer close(keys)
		buffer := make([]byte, 16)
		for {
			n, err := in.Read(buffer)
			for _, key := range buffer[:n] {
				keys <- key
			}
			if err != nil {
				return
			}
		}
	}()
	return keys
}

// draw shows the view on all of the screen.
func (sc *screen) draw(v *view) {
	width, height, err := term.GetSize(int(sc.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	_, _ = sc.out.WriteString(paint(v.render(width, height))) // a terminal that is gone says so by a signal
}

// paint is what the terminal is sent for lines: everything in one write, nothing cleared first, so nothing flickers.
func paint(lines []line) string {
	var text strings.Builder
	text.WriteString(home)
	for i, l := range lines {
		if i > 0 {
			text.WriteString("\r\n") // raw: LF alone keeps the column
		}
		if l.title {
			text.WriteString(bold + l.text + plain + clearRight)
		} else {
			text.WriteString(l.text + clearRight)
		}
	}
	text.WriteString(clearBelow)
	return text.String()
}
