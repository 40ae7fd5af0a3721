package reactor

// What the connections of a loop take for output that is unsent and for TLS is counted here. Their own size is the server's to
// count, which knows how many there are.

// tlsSize is what an idle TLS connection takes: 7 to 11 KB, see [TLS].
const tlsSize = 11 << 10

// maxRecord is the size of the longest TLS record, header and overhead included.
const maxRecord = 17 << 10

// size returns what the encryption takes. crypto/tls keeps a buffer with room for the longest record that has come in pieces,
// which append makes up to twice as large.
func (t *TLS) size() int { return tlsSize + 2*t.longest }

// received notes that n bytes have come, and whether they have ended a record.
func (t *TLS) received(n int, delivered bool) {
	t.partial = min(t.partial+n, maxRecord)
	t.longest = max(t.longest, t.partial)
	if delivered {
		t.partial = min(n, maxRecord)
	}
}

// size returns the memory of the bytes that are unsent: that of the largest array since there were none.
func (o *output) size() int {
	if o.unsent == nil {
		o.largest = 0
	}
	o.largest = max(o.largest, cap(o.unsent))
	return o.largest
}

// recount keeps the memory of the loop right, after what the connection takes may have changed.
func (c *Conn) recount() {
	if c.output != nil {
		c.loop.count(&c.output.counted, c.output.size())
	}
	if c.tls != nil {
		c.loop.count(&c.tls.counted, c.tls.size())
	}
}

// uncount takes the connection, which leaves the loop, out of its memory.
func (c *Conn) uncount() {
	if c.output != nil {
		c.loop.count(&c.output.counted, 0)
	}
	if c.tls != nil {
		c.loop.count(&c.tls.counted, 0)
	}
}

// count makes n bytes of the loop's memory what were counted ones.
func (l *Loop) count(counted *int, n int) {
	l.memory += int64(n - *counted)
	*counted = n
}

// Memory returns what the connections of the loop take for output that is unsent and for TLS, in bytes.
func (l *Loop) Memory() int64 { return l.memory }
