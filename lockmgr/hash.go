package lockmgr

import "hash/maphash"

// Seed makes the hashes of keys. A process makes one and uses it for all its tables: the same key must have the same
// hash on every loop. It is random, so that no client can choose keys that fall into one bucket or onto one loop.
//
// Its methods are safe from any goroutine. The zero value is not valid: its Hash panics.
type Seed struct {
	seed maphash.Seed
}

// MakeSeed returns a new random seed.
func MakeSeed() Seed {
	return Seed{maphash.MakeSeed()}
}

// Hash returns the hash of key, which differs from process to process. The table uses the low bits; a caller that
// spreads keys over several tables uses the high 32 bits for that. With the same bits for both, each table would fill only
// some of its buckets.
func (s Seed) Hash(key []byte) uint64 {
	return maphash.Bytes(s.seed, key)
}
