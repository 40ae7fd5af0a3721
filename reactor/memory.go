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

// recount keeps the memory of the loop's connections right, after that of this one may have changed.
func (c *Conn) recount() {
	n := 0
	if c.output != nil {
		n = c.output.size()
	}
	if c.tls != nil {
		n += c.tls.size()
	}
	c.count(n)
}

// count makes n bytes the memory of the connection on its loop.
func (c *Conn) count(n int) {
	c.loop.memory += int64(n - c.counted)
	c.counted = n
}

// Memory returns what the connections of the loop take for output that is unsent and for TLS, in bytes.
func (l *Loop) Memory() int64 { return l.memory }
