package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// The length of a token, in characters. A good token has 128 random bits, which takes at least 22 characters. One that is
// shorter than the minimum is a word that somebody made up.
const (
	minToken = 16
	maxToken = 4096
)

// token is the hash of the token that requests must show. Comparing hashes takes the same time for every guess, whatever
// its length.
type token [sha256.Size]byte

func newToken(text string) *token {
	t := token(sha256.Sum256([]byte(text)))
	return &t
}

func (t *token) matches(shown string) bool {
	hash := sha256.Sum256([]byte(shown))
	return subtle.ConstantTimeCompare(t[:], hash[:]) == 1
}

// tokenFile has the token that was last read from a file.
type tokenFile struct {
	path    string
	log     zerolog.Logger
	current atomic.Pointer[token]
}

// openToken returns a file that has been read.
func openToken(path string, log zerolog.Logger) (*tokenFile, error) {
	f := &tokenFile{path: path, log: log}
	return f, f.read()
}

// read reads the file again. After an error the token of before stays in use.
func (f *tokenFile) read() error {
	t, err := readToken(f.path, f.log)
	if err == nil {
		f.current.Store(t)
	}
	return err
}

func (f *tokenFile) matches(shown string) bool { return f.current.Load().matches(shown) }

// readToken reads a token from a file and drops the white space around it. A file that everybody can write is refused. One
// that everybody can read gets a warning only: in a container, which has no other users, secrets are mounted like that.
func readToken(path string, log zerolog.Logger) (*token, error) {
	const flag = "--admin-token-file"
	text, mode, err := readSecret(path)
	if err != nil {
		return nil, optionError("%s: %w", flag, err)
	}
	if len(text) > maxToken {
		return nil, optionError("%s %s: the token has more than %d characters", flag, path, maxToken)
	}
	if mode.Perm()&0o002 != 0 {
		return nil, optionError("%s %s: everybody can write it: chmod 600 %s", flag, path, path)
	}
	text = strings.TrimSpace(text)
	switch {
	case len(text) < minToken:
		return nil, optionError("%s %s: the token has %d characters, want at least %d: openssl rand -hex 32 makes a good one",
			flag, path, len(text), minToken)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, optionError("%s %s: want one line of ASCII without spaces", flag, path)
	}
	if mode.Perm()&0o004 != 0 {
		log.Warn().Str("file", path).Msg("everybody on this machine can read the admin token: chmod 600")
	}
	return newToken(text), nil
}

// readSecret reads a file, up to one byte more than the longest token has.
func readSecret(path string) (string, os.FileMode, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return "", 0, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	if err != nil {
		return "", 0, fmt.Errorf("read: %w", err)
	}
	return string(text), info.Mode(), nil
}
