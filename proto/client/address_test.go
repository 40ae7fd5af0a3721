package client

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]Address{
		"localhost:6001":        {"tcp", "localhost:6001", false},
		":6001":                 {"tcp", ":6001", false},
		"[::1]:6001":            {"tcp", "[::1]:6001", false},
		"tcp://10.0.0.1:6001":   {"tcp", "10.0.0.1:6001", false},
		"tls://locks:6002":      {"tcp", "locks:6002", true},
		"tls://[fe80::1%25e]:1": {"tcp", "[fe80::1%e]:1", true},
		"unix:///run/a.sock":    {"unix", "/run/a.sock", false},
		"unix:///run/a%20b c":   {"unix", "/run/a b c", false},
		"unix:///" + strings.Repeat("x", maxSocketPath-1): {"unix", "/" + strings.Repeat("x", maxSocketPath-1), false},
	} {
		if got, err := ParseAddress(text); got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"":                             "want host:port",
		"localhost":                    "want host:port",
		"localhost:":                   "want host:port",
		"::1:6001":                     "want host:port",
		"/run/lock.sock":               "want host:port",
		"tls://locks":                  "want tls://host:port",
		"tls://locks:6002/":            "want tls://host:port",
		"tls://locks:six":              "invalid port",
		"localhost:65536":              "the port must be a number from 1 to 65535",
		"localhost:0":                  "the port must be a number from 1 to 65535",
		"localhost:-1":                 "the port must be a number from 1 to 65535",
		"localhost:nosuchservice":      "the port must be a number from 1 to 65535",
		"tls://localhost:70000":        "the port must be a number from 1 to 65535",
		"http://locks:6001":            "tls://host:port or unix:///path",
		"unix:/run/lock.sock":          "unix:///path",
		"unix://run/lock.sock":         "three slashes",
		"unix://":                      "three slashes",
		"unix:///":                     "three slashes",
		"unix:///run/lock?mode=0660":   "want unix:///run/lock alone",
		"tls://:6002?allow=10.0.0.0/8": "want tls://:6002 alone",
		"tls://ann@locks:6002":         "want tls://locks:6002 alone",
		"tls://a b:6002":               "invalid character",
		"unix:///" + strings.Repeat("x", maxSocketPath): "at most 107 bytes",
	} {
		if got, err := ParseAddress(text); !errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v, want an error with %q", text, got, err, says)
		}
	}
}

// A wrong address is the error of every lock, and nothing is sent in the clear that was meant to be encrypted.
func TestWrongAddress(t *testing.T) {
	for address, o := range map[string]Options{
		"localhost":            {},
		"localhost:6001":       {TLS: &tls.Config{}},
		"tcp://localhost:6001": {TLS: &tls.Config{}},
	} {
		_, err := newClient(t, address, o).Lock(patient(t), "a", time.Second)
		wantErr(t, err, ErrAddress)
	}
}
