package api

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Age formats a duration in seconds for people, as dreadlockctl and the daemon's log show it, with at most two units: 250 ms,
// 3.5 s, 42 s, 3 min 20 s, 2 h 5 min, 7 d 3 h. It is never longer than the duration; a negative one is 0 ms.
func Age(seconds float64) string {
	const most = math.MaxInt64 / int64(time.Second)
	d := time.Duration(max(min(seconds, float64(most)), 0) * float64(time.Second))
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(math.Floor(d.Seconds()*10)/10, 'f', 1, 64) + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/day, d%day/time.Hour)
}

// Instant formats a time for people: RFC 3339, in the zone of this process.
func Instant(t time.Time) string { return t.Local().Format(time.RFC3339) }
