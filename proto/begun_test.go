package proto

import (
	"errors"
	"strings"
	"testing"
)

// parseHandedOver is parse, where each fragment goes to a parser of its own.
func parseHandedOver(t tester, fragments ...string) transcript {
	t.Helper()
	return parseBy(t, func(p *Parser) {
		text, length := p.Begun()
		if len(text) > length {
			t.Errorf("after %d bytes of a command, Begun returns %q", length, text)
		}
		*p = Parser{}
		if err := p.Resume(text, length); err != nil {
			t.Fatalf("Resume(%q, %d): %v", text, length, err)
		}
	}, fragments...)
}

// TestBegunAtTheLimit hands over a command as long as may be.
func TestBegunAtTheLimit(t *testing.T) {
	for _, spaces := range []int{MaxCommand - len("lock k 1\r\n"), MaxCommand - len("lock k 1\r\n") + 1} {
		text := "lock k" + strings.Repeat(" ", spaces) + " 1\r\n"
		for at := range len(text) {
			if at > 20 && at < len(text)-10 {
				continue
			}
			if got, want := parseHandedOver(t, text[:at], text[at:]), grammar([]byte(text)); !got.equal(want) {
				t.Errorf("%d spaces, cut at byte %d:\n got %+v\nwant %+v", spaces, at, got, want)
			}
		}
	}
}

// TestBegunHasNothingNeedless has texts as short as can be, so that what is handed over does not depend on the states of a version.
func TestBegunHasNothingNeedless(t *testing.T) {
	for input, want := range map[string]string{
		"":                                  "",
		"L":                                 "l",
		"unlO":                              "unlo",
		"LOCK":                              "lock",
		"lock   ":                           "lock ",
		"lock  Ab":                          "lock Ab",
		"lock a   ":                         "lock a ",
		"lock a 00":                         "lock a 0",
		"lock a 0012":                       "lock a 12",
		"lock a 12   ":                      "lock a 12 ",
		"lock a 12 \r":                      "lock a 12\r",
		"lock a " + strings.Repeat("9", 30): "lock a 9223372036854",
		"name ~\x7f":                        "",
		"unlock a\r":                        "unlock a\r",
		"fence a ":                          "fence a ",
		"owner a\r\n":                       "",
		"owner a\r\nowner bb":               "owner bb",
	} {
		var p Parser
		var cmd Command
		for data := []byte(input); ; {
			n, status := p.Next(data, &cmd)
			if data = data[n:]; status != Complete {
				break
			}
		}
		if got, _ := p.Begun(); string(got) != want {
			t.Errorf("after %q a command has begun with %q, want %q", input, got, want)
		}
	}
}

func TestResumeErrors(t *testing.T) {
	for text, length := range map[string]int{
		"lock a 1\r\n":                           10,
		"lock a 1\r\nlo":                         12,
		"lokc":                                   4,
		"lock":                                   3,
		"lock ":                                  MaxCommand + 1,
		"":                                       1,
		"name " + strings.Repeat("a", MaxName+1): 200,
		"lock " + strings.Repeat("a", MaxCommand): MaxCommand,
	} {
		var p Parser
		if err := p.Resume([]byte(text), length); !errors.Is(err, ErrBegun) {
			t.Errorf("Resume(%.20q, %d): %v, want %v", text, length, err, ErrBegun)
		}
	}
	var p Parser
	if err := p.Resume([]byte("lock"), -1); !errors.Is(err, ErrBegun) {
		t.Errorf("Resume of a negative length: %v", err)
	}
}
