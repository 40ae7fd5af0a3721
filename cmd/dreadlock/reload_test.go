package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
)

// What cannot be read again does not keep the rest from being read.
func TestReload(t *testing.T) {
	var log bytes.Buffer
	read := ""
	reload(zerolog.New(&log), []reloadable{
		{"first", func() error { read += "1"; return nil }},
		{"second", func() error { read += "2"; return errors.New("no such file") }},
		{"third", func() error { read += "3"; return nil }},
	})
	if read != "123" {
		t.Errorf("read: %s, want 123", read)
	}
	const want = `{"level":"error","read":["first","third"],"failed":["second: no such file"],` +
		`"message":"reloaded in part: what cannot be read stays as it was"}` + "\n"
	if log.String() != want {
		t.Errorf("the log says\n%swant\n%s", &log, want)
	}
	log.Reset()
	reload(zerolog.New(&log), nil)
	if want := `{"level":"info","read":[],"message":"reloaded"}` + "\n"; log.String() != want {
		t.Errorf("without anything to read the log says\n%swant\n%s", &log, want)
	}
}

// SIGHUP takes nothing from anybody, as often as it comes.
func TestHangUp(t *testing.T) {
	d := start(t)
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	for range 20 {
		d.signal(syscall.SIGHUP)
	}
	if _, ok := d.log.await("reloaded"); !ok {
		t.Errorf("the log does not tell of the reload:\n%s", d.log)
	}
	holder.Do("lock a 0", "e already locked")
	d.alive()
	d.stop()
}

// A hang-up reads the token of the admin interface again: the one before is no longer valid. One that cannot be used changes
// nothing.
func TestReloadToken(t *testing.T) {
	const first, second = "0123456789abcdef", "fedcba9876543210"
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	v := startAdmin(t, "--admin-token-file", file)
	status := func(token string) int {
		t.Helper()
		v.token = token
		got, _ := v.request(http.MethodGet, "/api/v1/status")
		return got
	}
	write("short")
	v.d.signal(syscall.SIGHUP)
	line, ok := v.d.log.await("reloaded in part: what cannot be read stays as it was")
	if !ok || !strings.Contains(line.text("failed"), "admin token: --admin-token-file "+file+": the token has 5 characters") {
		t.Errorf("the log says %v", line)
	}
	if got := status(first); got != http.StatusOK {
		t.Errorf("the token of before, after one that cannot be used: %d", got)
	}
	write(second)
	v.d.signal(syscall.SIGHUP)
	if line, ok := v.d.log.await("reloaded"); !ok || !strings.Contains(line.text("read"), "admin token") {
		t.Errorf("the log says %v", line)
	}
	if got := status(first); got != http.StatusUnauthorized {
		t.Errorf("the token of before: %d, want 401", got)
	}
	if got := status(second); got != http.StatusOK {
		t.Errorf("the new token: %d", got)
	}
}
