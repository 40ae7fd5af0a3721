package main

import (
	"os"
	"strings"

	"golang.org/x/term"
)

// Control sequences that all terminals have understood since the VT100 and xterm.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the alternate screen, with the cursor hidden
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	bold        = "\x1b[1m"
	plain       = "\x1b[0m"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"

	ctrlC = '\x03' // a raw terminal sends this byte instead of a signal
)

// screen is the terminal that a view is drawn on. One goroutine uses it; another one reads the keys.
type screen struct {
	out   *os.File
	in    *os.File
	state *term.State // of the input before; nil if that is no terminal
	keys  <-chan byte // closed at the end of the input
}

// openScreen prepares the terminal; close restores it.
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

// readKeys reads until the process ends: a read of a terminal cannot be interrupted.
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

// draw draws the view on the whole screen.
func (sc *screen) draw(v *view) {
	width, height, err := term.GetSize(int(sc.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	_, _ = sc.out.WriteString(paint(v.render(width, height))) // if the terminal is gone, a signal comes
}

// paint returns what to send to the terminal: all in one write and without clearing the screen first, so that it does not
// flicker.
func paint(lines []line) string {
	var text strings.Builder
	text.WriteString(home)
	for i, l := range lines {
		if i > 0 {
			text.WriteString("\r\n") // in raw mode LF alone keeps the column
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
