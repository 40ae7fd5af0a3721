package main

import "testing"

// With --log-events the log has what happens to keys, up to the end of the daemon; without it, it has not.
func TestLogEvents(t *testing.T) {
	for name, l := range map[string]struct {
		launch launch
		args   []string
		logs   bool
	}{
		"option":      {args: []string{"--log-events"}, logs: true},
		"environment": {launch: launch{env: []string{"DREADLOCK_LOG_EVENTS=true"}}, logs: true},
		"default":     {},
	} {
		t.Run(name, func(t *testing.T) {
			d := startWith(t, l.launch, append([]string{"--listen", "127.0.0.1:0"}, l.args...)...)
			c := d.dial()
			c.Do("lock nightly 0", "l locked")
			c.Do("unlock nightly", "u unlocked")
			d.stop()
			d.log.awaitEnd()
			for _, kind := range []string{"granted", "released"} {
				line, found := d.log.awaitLine(func(l logLine) bool { return l.text("message") == "event" && l.text("kind") == kind })
				if found != l.logs || found && (line.text("key") != "nightly" || line.text("client") != c.Conn().LocalAddr().String()) {
					t.Errorf("%s: %v", kind, line)
				}
			}
		})
	}
}
