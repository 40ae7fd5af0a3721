package proto

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

const (
	// MaxCommand is the largest length of a command in bytes, CR LF included. It bounds what a parser stores for a
	// connection.
	MaxCommand = 10_000

	// MaxTimeout is the longest timeout, some 292 years: the largest time.Duration of whole milliseconds. A larger
	// number on the wire means MaxTimeout.
	MaxTimeout = math.MaxInt64 / time.Millisecond * time.Millisecond

	// MaxKey is the largest length in bytes of a key for which every command that AppendLock and AppendUnlock write
	// fits into MaxCommand, whatever the timeout. The grammar itself has no such limit: a shorter timeout, or an
	// unlock, leaves room for a few bytes more.
	MaxKey = MaxCommand - len("lock  9223372036855\r\n")
)

// What ValidKey finds wrong with a key.
var (
	ErrEmptyKey   = errors.New("proto: empty key")
	ErrKeyTooLong = errors.New("proto: key too long") // longer than MaxKey
	ErrKeyByte    = errors.New("proto: key has a byte that is not a letter or digit")
)

// Kind says what a command asks for. The zero Kind is none.
type Kind uint8

// The kinds of commands.
const (
	Lock Kind = iota + 1
	Unlock
)

// String returns the keyword of the kind.
func (k Kind) String() string {
	switch k {
	case Lock:
		return "lock"
	case Unlock:
		return "unlock"
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Command is one command as Parser.Next fills it in.
type Command struct {
	Kind Kind

	// Key is the name to lock or unlock. It aliases the input of the Next that completed the command, or the parser's
	// own storage. It is valid until that input changes (see Parser.Retain) or until the next Next, whichever comes
	// first.
	Key []byte

	// Timeout of a lock, in whole milliseconds, 0 to MaxTimeout; 0 of an unlock.
	Timeout time.Duration
}

// AppendLock appends the command that locks key to dst and returns the extended slice. The timeout is rounded up to a
// millisecond; a negative one is 0. The key must satisfy ValidKey, else what is appended is no command.
func AppendLock(dst []byte, key string, timeout time.Duration) []byte {
	ms := int64(max(timeout, 0) / time.Millisecond)
	if timeout > 0 && timeout%time.Millisecond != 0 {
		ms++
	}
	dst = append(dst, "lock "...)
	dst = append(dst, key...)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, ms, 10)
	return append(dst, "\r\n"...)
}

// AppendUnlock appends the command that unlocks key to dst and returns the extended slice. The key must satisfy
// ValidKey, else what is appended is no command.
func AppendUnlock(dst []byte, key string) []byte {
	dst = append(dst, "unlock "...)
	dst = append(dst, key...)
	return append(dst, "\r\n"...)
}

// ValidKey returns nil if key can be sent with AppendLock and AppendUnlock, else an error that wraps ErrEmptyKey,
// ErrKeyTooLong or ErrKeyByte.
func ValidKey(key string) error {
	if key == "" {
		return ErrEmptyKey
	}
	if len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrKeyTooLong, len(key), MaxKey)
	}
	for i := range len(key) {
		if !keyByte[key[i]] {
			return fmt.Errorf("%w: %q at byte %d", ErrKeyByte, key[i:i+1], i+1)
		}
	}
	return nil
}
