package main

import (
	"bytes"
	"errors"
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
	for _, want := range []string{`"what":"second"`, "no such file", "stays in use", `"read":2,"failed":1`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %s:\n%s", want, &log)
		}
	}
	if n := strings.Count(log.String(), "stays in use"); n != 1 {
		t.Errorf("%d failures in the log, want 1:\n%s", n, &log)
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
