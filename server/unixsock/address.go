package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
)

// Address is where to open a socket, and for whom.
type Address struct {
	Path  string
	Mode  fs.FileMode
	Group string // empty for that of the process
}

// ParseURL reads unix:///PATH?mode=0660&group=NAME. Without a mode it is the given one. It looks at no other parameters, which
// are the caller's: u.Query() has them. Errors do not repeat the URL.
func ParseURL(u *url.URL, mode fs.FileMode) (Address, error) {
	if u.Scheme != "unix" || u.Opaque != "" || u.Host != "" || u.User != nil || u.Path == "" || u.Fragment != "" {
		return Address{}, errors.New("want unix:///PATH, with three slashes")
	}
	a := Address{Path: u.Path, Mode: mode, Group: u.Query().Get("group")}
	if text := u.Query().Get("mode"); text != "" {
		n, err := strconv.ParseUint(text, 8, 32)
		if err != nil || n > 0o777 {
			return Address{}, fmt.Errorf("mode=%s: want an octal number up to 0777, like 0660", text)
		}
		a.Mode = fs.FileMode(n)
	}
	return a, nil
}

// Listen opens the socket: see the function [Listen].
func (a Address) Listen() (*Listener, error) { return Listen(a.Path, a.Mode, a.Group) }
