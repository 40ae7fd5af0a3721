package certs

import (
	"context"
	"time"
)

const (
	// checkTime passes between two looks at the files.
	checkTime = time.Second
	// expiryNotice is how long before it expires a certificate is warned of, once in every expiryPeriod.
	expiryNotice = 14 * 24 * time.Hour
	expiryPeriod = 24 * time.Hour
)

// Watch reads the files again when they have changed, and warns of their expiry, until ctx is done.
//
// Whoever renews a certificate may write its files one after the other. What is half-written is read again at every look;
// until it can be used, the store keeps what it has.
func (s *Store) Watch(ctx context.Context) {
	looks := time.NewTicker(checkTime)
	defer looks.Stop()
	for {
		s.look()
		select {
		case <-looks.C:
		case <-ctx.Done():
			return
		}
	}
}

// look is what Watch does each time.
func (s *Store) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if had := s.failed; had || s.stat() != s.stamps {
		switch err := s.read(); {
		case err == nil:
			s.log.Info().Time("expires", s.Expires()).Msg("TLS certificates were read again")
		case !had:
			s.log.Warn().Err(err).Msg("TLS certificates have changed and cannot be used: those read before stay in use until " +
				"the files are complete; they are read again every second")
		}
	}
	s.warnOfExpiry(time.Now())
}

// warnOfExpiry warns of a certificate that expires soon, unless that was done lately.
func (s *Store) warnOfExpiry(now time.Time) {
	expires := s.Expires()
	if now.Before(expires.Add(-expiryNotice)) || !s.warned.IsZero() && now.Sub(s.warned) < expiryPeriod {
		return
	}
	s.warned = now
	text := "the TLS certificate expires soon: renew it, it is read again without a restart"
	if !now.Before(expires) {
		text = "the TLS certificate has expired, clients refuse it: renew it, it is read again without a restart"
	}
	s.log.Warn().Str("file", s.files.Cert).Time("expires", expires).Msg(text)
}
