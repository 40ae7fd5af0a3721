package lockmgr

const (
	// entrySize is what a held key with inline storage costs, in bytes: its entry, and its buckets in the index, of which
	// there are at most two for each key.
	entrySize = 128 + 2*8

	// minLongKey is the smallest storage of its own that a key has, in bytes: what append makes of the inline one.
	minLongKey = 48

	// longKeyUnit is what longer storage is rounded up to, after an eighth was added: the allocator's size classes lie no
	// further apart.
	longKeyUnit = 16
)

// KeySize returns what a key that is held or rests of that length costs in memory, in bytes: the same for every table, and at every time.
func KeySize(length int) int {
	if length <= inlineKey {
		return entrySize
	}
	return entrySize + max(minLongKey, (length+length/8+longKeyUnit-1)&^(longKeyUnit-1))
}

// Size returns what the keys that are held or rest cost in memory, in bytes: the sum of their [KeySize]. What a table keeps for
// reuse is not in it; that is bounded.
func (t *Table) Size() int64 { return t.size }

// Trim gives up what the table keeps for reuse. Its next keys cost an allocation each.
func (t *Table) Trim() { t.pool = pool{} }
