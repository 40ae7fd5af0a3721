package proto

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// MaxKey is the largest length in bytes of a key for which every command of AppendLock, AppendUnlock and AppendFence fits
// into MaxCommand, whatever the timeout. The grammar itself has no such limit: a shorter timeout, or an unlock, leaves room
// for a few bytes more.
const MaxKey = MaxCommand - len("lock  9223372036855\r\n")

// The errors of ValidKey, ValidName and ValidOwner.
var (
	ErrEmptyKey     = errors.New("proto: empty key")
	ErrKeyTooLong   = errors.New("proto: key too long") // longer than MaxKey
	ErrKeyByte      = errors.New("proto: key has a byte that is not a letter or digit")
	ErrEmptyName    = errors.New("proto: empty name")
	ErrNameTooLong  = errors.New("proto: name too long") // longer than MaxName
	ErrNameByte     = errors.New("proto: name has a byte that is not printable ASCII")
	ErrEmptyOwner   = errors.New("proto: empty owner")
	ErrOwnerTooLong = errors.New("proto: owner too long") // longer than MaxOwner
	ErrOwnerByte    = errors.New("proto: owner has a byte that is not a letter or digit")
)

// AppendLock appends the command that locks key to dst and returns the extended slice. The timeout is rounded up to a
// millisecond; a negative one is 0. The key must satisfy ValidKey, otherwise what is appended is not a command.
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

// AppendUnlock appends the command that unlocks key, which must satisfy ValidKey.
func AppendUnlock(dst []byte, key string) []byte { return appendCommand(dst, "unlock ", key) }

// AppendFence appends the command that asks for the token of key, which must satisfy ValidKey.
func AppendFence(dst []byte, key string) []byte { return appendCommand(dst, "fence ", key) }

// AppendName appends the command that names the connection. The name must satisfy ValidName.
func AppendName(dst []byte, name string) []byte { return appendCommand(dst, "name ", name) }

// AppendOwner appends the command that gives the connection an owner, which must satisfy ValidOwner.
func AppendOwner(dst []byte, owner string) []byte { return appendCommand(dst, "owner ", owner) }

func appendCommand(dst []byte, keyword, arg string) []byte {
	dst = append(dst, keyword...)
	dst = append(dst, arg...)
	return append(dst, "\r\n"...)
}

// ValidKey returns nil if key can be sent with AppendLock, AppendUnlock and AppendFence, else an error that wraps
// ErrEmptyKey, ErrKeyTooLong or ErrKeyByte.
func ValidKey(key string) error {
	return valid(key, MaxKey, letters|digits, ErrEmptyKey, ErrKeyTooLong, ErrKeyByte)
}

// ValidName returns nil if name can be sent with AppendName, else an error that wraps ErrEmptyName, ErrNameTooLong or
// ErrNameByte.
func ValidName(name string) error {
	return valid(name, MaxName, text.bytes, ErrEmptyName, ErrNameTooLong, ErrNameByte)
}

// ValidOwner returns nil if owner can be sent with AppendOwner, else an error that wraps ErrEmptyOwner, ErrOwnerTooLong or
// ErrOwnerByte.
func ValidOwner(owner string) error {
	return valid(owner, MaxOwner, id.bytes, ErrEmptyOwner, ErrOwnerTooLong, ErrOwnerByte)
}

func valid(arg string, longest int, bytes set, empty, tooLong, badByte error) error {
	if arg == "" {
		return empty
	}
	if len(arg) > longest {
		return fmt.Errorf("%w: %d bytes, at most %d", tooLong, len(arg), longest)
	}
	for i := range len(arg) {
		if setOf[arg[i]]&bytes == 0 {
			return fmt.Errorf("%w: %q at byte %d", badByte, arg[i:i+1], i+1)
		}
	}
	return nil
}
