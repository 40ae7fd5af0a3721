package unixsock

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for text, want := range map[string]Address{
		"unix:///run/a.sock":                         {"/run/a.sock", 0o600, ""},
		"unix:/run/a.sock":                           {"/run/a.sock", 0o600, ""},
		"unix:///run/a.sock?mode=0660&group=locks":   {"/run/a.sock", 0o660, "locks"},
		"unix:///run/a%20b?mode=777&group=7&other=x": {"/run/a b", 0o777, "7"},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseURL(u, 0o600); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"unix://run/a.sock":     "three slashes",
		"unix:run/a.sock":       "three slashes",
		"unix://":               "three slashes",
		"unix://me@/run/a.sock": "three slashes",
		"unix:///run/a.sock#b":  "three slashes",
		"http:///run/a.sock":    "three slashes",
		"unix:///a?mode=rw":     "mode=rw: want an octal number",
		"unix:///a?mode=1777":   "mode=1777: want an octal number",
		"unix:///a?mode=-1":     "mode=-1: want an octal number",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseURL(u, 0o600); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}
