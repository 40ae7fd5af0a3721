package main

import "strings"

// addresses are the values of an option that may be given several times. In the environment they are separated by blanks. An
// empty value is kept, as it means something.
type addresses []string

// UnmarshalText adds the addresses in the text.
func (a *addresses) UnmarshalText(text []byte) error { //nolint:unparam // kong asks for an encoding.TextUnmarshaler
	more := strings.Fields(string(text))
	if len(more) == 0 {
		more = []string{""}
	}
	*a = append(*a, more...)
	return nil
}
