package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// awaitLog waits until the log has a line with all the texts, and returns it.
func (d *daemon) awaitLog(texts ...string) (line string) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		lines := d.log.containing(texts...)
		if len(lines) == 0 {
			return fmt.Errorf("no line has %q", texts)
		}
		line = lines[0]
		return nil
	})
	return line
}

// Events are logged as they happen, the last ones when the server stops.
func TestLogEvents(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.LogEvents = true })
	c := d.dial()
	d.identify(c, "ann", "x")
	from := c.Conn().LocalAddr().String()
	c.Do("lock a 0", "l locked")
	d.awaitLog(`"message":"event"`, `"level":"info"`, `"kind":"granted"`, `"key":"a"`, `"client":"`+from+`"`, `"name":"ann"`,
		`"owner":"x"`, `"connection":1`, `"token":`, `"waited":"0 ms"`, `"at":"2`)
	long := strings.Repeat("x", 5000)
	c.Do("lock "+long+" 0", "l locked")
	if line := d.awaitLog(`"kind":"granted"`, `"key":"xxx`); len(line) > 500 {
		t.Errorf("a line of %d bytes", len(line))
	}
	c.Do("unlock a", "u unlocked")
	d.stop()
	d.wantLog(1, `"message":"event"`, `"kind":"released"`, `"key":"a"`, `"held":"`)
	d.wantLog(3, `"message":"event"`)
}

// Of very many events some are logged, and the others counted.
func TestLogManyEvents(t *testing.T) {
	const events = 5000
	d := startDaemon(t, func(cfg *Config) { cfg.LogEvents = true })
	c := d.dial()
	var all, replies []string
	for range events / 2 {
		all, replies = append(all, "lock a 0", "unlock a"), append(replies, "l locked", "u unlocked")
	}
	go c.Write([]byte(strings.Join(all, "\r\n") + "\r\n"))
	c.Expect(replies...)
	eventually(t, func() error {
		sum := len(d.log.containing(`"message":"event"`))
		for _, line := range d.log.containing("more events were left out") {
			_, rest, _ := strings.Cut(line, `"events":`)
			n, err := strconv.Atoi(rest[:strings.IndexAny(rest, ",}")])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != events {
			return fmt.Errorf("%d events are logged or counted, want %d", sum, events)
		}
		return nil
	})
}

// Nobody collects events for a log that does not show them.
func TestLogEventsUnseen(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) {
		cfg.LogEvents = true
		cfg.Log = cfg.Log.Level(zerolog.WarnLevel)
	})
	if d.server.eventLog != nil {
		t.Error("events are collected")
	}
}
