package server

import (
	"strings"
	"testing"

	"dreadlock/proto"
)

// refusedAs returns the hint for the first syntax error in a text that comes in fragments of some bytes.
func refusedAs(t *testing.T, text string, size int) string {
	t.Helper()
	var p proto.Parser
	var cmd proto.Command
	for len(text) > 0 {
		fragment := []byte(text[:min(size, len(text))])
		for n := 0; n < len(fragment); {
			consumed, status := p.Next(fragment[n:], &cmd)
			n += consumed
			if status == proto.Invalid {
				return hint(p.Err(), fragment, n)
			}
		}
		text = text[len(fragment):]
	}
	t.Fatalf("no syntax error in %q", text)
	return ""
}

// A person who begins with something else than the protocol is told by the log what to send. Every hint is given.
func TestHint(t *testing.T) {
	given := make(map[string]bool)
	for _, tc := range []struct{ text, hint string }{
		{"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "--admin"},
		{"OPTIONS * HTTP/1.1\r\n", "--admin"}, // begins as owner does
		{"LOCK /a HTTP/1.1\r\n", "--admin"},   // of WebDAV
		{"lock a 0\r\nPRI * HTTP/2.0\r\n\r\n", "--admin"},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls://"},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "?proxy="},
		{"\r\n\r\n\x00\r\nQUIT\n\x21\x11", "?proxy="},
		{"*1\r\n$4\r\nPING\r\n", "Redis"},
		{"\r\n", "no empty lines"},
		{"lock a 0\r\n\n", "no empty lines"},
		{"lock a 5000\n", "nc -C"},
		{"unlock a\n", "nc -C"},
		{"fence a \n", "nc -C"},
		{"unlock a\rx", "CR alone"},
		{" lock a 0\r\n", "no space before"},
		{"lock\ta 0\r\n", "by spaces"},
		{"\tlock a 0\r\n", "by spaces"},
		{"help\r\n", "the commands are"},
		{"locks a 0\r\n", "the commands are"},
		{"lock\r\n", "a word is missing"},
		{"unlock \r\n", "a word is missing"},
		{"name\r\n", "a word is missing"},
		{"lock a\r\n", "the timeout is missing"},
		{"lock a \r\n", "the timeout is missing"},
		{"lock my-key 0\r\n", "letters and digits"},
		{"lock schlüssel 0\r\n", "letters and digits"},
		{"unlock a_b\r\n", "letters and digits"},
		{"fence /a\r\n", "letters and digits"},
		{"lock a -1\r\n", "milliseconds"},
		{"lock a 5s\r\n", "milliseconds"},
		{"lock a 1 2\r\n", "a word too many"},
		{"name ann smith\r\n", "a word too many"},
		{"name " + strings.Repeat("a", proto.MaxName+1) + "\r\n", "more than 128"},
		{"name bärbel\r\n", "ASCII"},
		{"owner a.b\r\n", "an owner"},
		{"owner ä\r\n", "an owner"},
		{"lock " + strings.Repeat("a", proto.MaxCommand), "at most 10,000"},
	} {
		got := refusedAs(t, tc.text, len(tc.text))
		if given[got] = true; !strings.Contains(got, tc.hint) {
			t.Errorf("%.40q: the hint is %q, want %q", tc.text, got, tc.hint)
		}
		if got := refusedAs(t, tc.text, 1); got == "" { // the beginning of the line is not there any more
			t.Errorf("%.40q byte by byte has no hint", tc.text)
		}
	}
	for _, h := range hints {
		if !given[h.hint] {
			t.Errorf("no case has the hint %q", h.hint)
		}
	}
}
