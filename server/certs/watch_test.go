package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dreadlock/proto/prototest"
)

// watch runs Watch in virtual time, beside what happens to the files.
func watch(t *testing.T, happens func(t *testing.T, ca *prototest.CA, files Files, s *Store, log *logText)) {
	synctest.Test(t, func(t *testing.T) {
		ca := prototest.NewCA(t)
		files := newFiles(t, ca, ca)
		prototest.WriteFiles(t, validFor(ca, 100*day), files.Cert, files.Key)
		var log logText
		s := load(t, files, &log)
		ctx, cancel := context.WithCancel(t.Context())
		go s.Watch(ctx)
		synctest.Wait() // it has looked once
		happens(t, ca, files, s, &log)
		cancel()
		synctest.Wait()
	})
}

// pass lets the watcher look at the files.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the time is virtual
	synctest.Wait()
}

const day = 24 * time.Hour

// validFor returns a certificate that expires some time from now.
func validFor(ca *prototest.CA, d time.Duration) tls.Certificate {
	return ca.Issue("localhost", func(cert *x509.Certificate) { cert.NotAfter = time.Now().Add(d) })
}

// logText is a log that can be read while it is written.
type logText struct {
	mu   sync.Mutex
	text []byte
}

func (l *logText) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, line...)
	return len(line), nil
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// count returns how often a text is in the log.
func (l *logText) count(text string) int { return strings.Count(l.String(), text) }

// A changed certificate is read within a second or so, once; so is a changed authority.
func TestWatchChanges(t *testing.T) {
	watch(t, func(t *testing.T, ca *prototest.CA, files Files, s *Store, log *logText) {
		pass(time.Minute)
		if log.String() != "" {
			t.Errorf("without a change it says %s", log)
		}
		renewed := validFor(ca, 200*day)
		prototest.WriteFiles(t, renewed, files.Cert, files.Key)
		pass(2 * checkTime)
		if !s.Expires().Equal(renewed.Leaf.NotAfter) || log.count("TLS certificates were read again") != 1 {
			t.Errorf("a renewed certificate is not used; log:\n%s", log)
		}
		text, err := os.ReadFile(prototest.NewCA(t).File())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files.ClientCA, append(text, "\n# a comment\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		before := s.current.Load().config.ClientCAs
		pass(2 * checkTime)
		if s.current.Load().config.ClientCAs.Equal(before) || log.count("TLS certificates were read again") != 2 {
			t.Errorf("a new authority is not used; log:\n%s", log)
		}
	})
}

// Half-written files leave the old ones in use, with one warning, until the rest is there.
func TestWatchHalfWritten(t *testing.T) {
	watch(t, func(t *testing.T, ca *prototest.CA, files Files, s *Store, log *logText) {
		old := s.current.Load()
		renewed := validFor(ca, 200*day)
		cert, key := ca.Files(renewed)
		if err := os.Rename(cert, files.Cert); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if s.current.Load() != old || log.count("warn") != 1 || log.count("cannot be used") != 1 || log.count("--tls-key") != 1 {
			t.Errorf("log:\n%s", log)
		}
		if err := os.Rename(key, files.Key); err != nil {
			t.Fatal(err)
		}
		pass(2 * checkTime)
		if s.current.Load() == old || log.count("TLS certificates were read again") != 1 {
			t.Errorf("a complete pair is not used; log:\n%s", log)
		}
	})
}

// A reload that fails is the caller's to report; the files are read again until they can be used.
func TestWatchAfterReload(t *testing.T) {
	watch(t, func(t *testing.T, _ *prototest.CA, files Files, s *Store, log *logText) {
		away := files.Key + ".away"
		if err := os.Rename(files.Key, away); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(); err == nil {
			t.Fatal("a reload without a key succeeds")
		}
		pass(time.Minute)
		if log.String() != "" {
			t.Errorf("it says %s", log)
		}
		if err := os.Rename(away, files.Key); err != nil {
			t.Fatal(err)
		}
		pass(2 * checkTime)
		if log.count("TLS certificates were read again") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

// Expiry is warned of once a day, from 14 days before until the certificate is renewed.
func TestWarnOfExpiry(t *testing.T) {
	ca := prototest.NewCA(t)
	files := newFiles(t, ca, nil)
	var log logText
	begin := time.Now()
	renew := func(d time.Duration) *Store {
		prototest.WriteFiles(t, validFor(ca, d), files.Cert, files.Key)
		return load(t, files, &log)
	}
	now := begin
	// pass lets time pass and returns how many warnings of each kind there were.
	pass := func(s *Store, d time.Duration) (soon, late int) {
		soon, late = log.count("expires soon"), log.count("has expired")
		for end := now.Add(d); now.Before(end); now = now.Add(time.Minute) {
			s.warnOfExpiry(now)
		}
		return log.count("expires soon") - soon, log.count("has expired") - late
	}
	s := renew(20 * day)
	for _, c := range []struct {
		pass       time.Duration
		soon, late int
	}{
		{5 * day, 0, 0},
		{day + time.Hour, 1, 0}, // the 14th day before
		{2 * day, 2, 0},
		{12 * day, 11, 1},
		{day, 0, 1},
	} {
		soon, late := pass(s, c.pass)
		if soon != c.soon || late != c.late {
			t.Errorf("until %s: %d and %d warnings, want %d and %d", now.Sub(begin), soon, late, c.soon, c.late)
		}
	}
	if log.count(files.Cert) != log.count("warn") {
		t.Errorf("the file is not named in log:\n%s", &log)
	}
	s = renew(100 * day)
	if soon, late := pass(s, day); soon+late > 0 {
		t.Errorf("%d and %d warnings of a renewed certificate", soon, late)
	}
}

// The watcher warns.
func TestWatchExpiry(t *testing.T) {
	watch(t, func(t *testing.T, ca *prototest.CA, files Files, _ *Store, log *logText) {
		prototest.WriteFiles(t, validFor(ca, day), files.Cert, files.Key)
		pass(time.Minute)
		if log.count("expires soon") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}
