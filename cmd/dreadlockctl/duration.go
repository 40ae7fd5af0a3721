package main

import (
	"strconv"
	"time"
)

// duration is a time.Duration on the command line. A bare number means seconds, as for flock and sleep.
type duration time.Duration

// UnmarshalText reads a duration such as 5m, or a number of seconds.
func (d *duration) UnmarshalText(text []byte) error {
	with := string(text)
	if _, err := strconv.ParseFloat(with, 64); err == nil {
		with += "s"
	}
	value, err := time.ParseDuration(with)
	if err != nil {
		return badOption("%q: want a duration such as 30s, 5m or 2h, or a number of seconds", text)
	}
	*d = duration(value)
	return nil
}

// String returns the duration as time.Duration does.
func (d duration) String() string { return time.Duration(d).String() }
