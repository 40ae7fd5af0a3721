package proto

import (
	"fmt"
	"strconv"
)

// Reason says what the grammar allows at the place of a syntax error.
type Reason uint8

// The reasons, in the order in which a command reaches them.
const (
	WantKeyword    Reason = iota + 1 // at the first byte, or inside the keyword
	WantSpace                        // right after the keyword
	WantKey                          // after the spaces that follow the keyword
	WantKeyOrSpace                   // inside or right after a key that another argument follows
	WantKeyOrEnd                     // inside or right after any other key
	WantText                         // after the spaces that follow the keyword
	WantTextOrEnd                    // inside or right after the text
	WantID                           // after the spaces that follow the keyword
	WantIDOrEnd                      // inside or right after the id
	WantTimeout                      // after the spaces that follow the key of a lock
	WantDigitOrEnd                   // inside or right after the timeout
	WantEnd                          // after the spaces at the end, or after the longest text or id
	WantLF                           // after the CR
	TooLong                          // at byte MaxCommand+1, whatever it is
)

var reasons = [...]string{
	WantKeyword:    "want " + keywords(),
	WantSpace:      "want a space",
	WantKey:        "want a space or a key of letters and digits",
	WantKeyOrSpace: "want a letter, a digit or a space",
	WantKeyOrEnd:   "want a letter, a digit, a space or CR LF",
	WantText:       "want a space or a word of printable ASCII",
	WantTextOrEnd:  "want printable ASCII, a space or CR LF",
	WantID:         "want a space or an id of letters and digits",
	WantIDOrEnd:    "want a letter, a digit, a space or CR LF",
	WantTimeout:    "want a space or a timeout of digits",
	WantDigitOrEnd: "want a digit, a space or CR LF",
	WantEnd:        "want a space or CR LF",
	WantLF:         "want LF",
	TooLong:        "command too long",
}

// String describes the reason in a few words.
func (r Reason) String() string {
	if int(r) < len(reasons) && reasons[r] != "" {
		return reasons[r]
	}
	return "Reason(" + strconv.Itoa(int(r)) + ")"
}

// SyntaxError is the first byte that cannot continue a command.
type SyntaxError struct {
	Reason Reason
	Column int  // of the byte within its command; the first is 1
	Byte   byte // the offending byte itself
}

// Error says where the byte is, what was wanted and what came.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("proto: column %d: %s, got %q", e.Column, e.Reason, string([]byte{e.Byte}))
}
