package server

// spareSize is the capacity of the buffers that are kept for reuse; nearly every backlog fits into one.
const spareSize = 4 << 10

// maxSpare bounds the buffers that a loop keeps for reuse: 256 KiB.
const maxSpare = 64

// spareBuffers are the buffers that a loop keeps for reuse.
type spareBuffers [][]byte

func (b *spareBuffers) get() []byte {
	if n := len(*b); n > 0 {
		buf := (*b)[n-1]
		*b = (*b)[:n-1]
		return buf
	}
	return make([]byte, 0, spareSize)
}

func (b *spareBuffers) put(buf []byte) {
	if cap(buf) == spareSize && len(*b) < maxSpare {
		*b = append(*b, buf[:0])
	}
}

// backlog is the input of a session that was read and not parsed yet: what came behind a command that is under way. The
// zero value is empty and has no memory.
type backlog struct {
	buf  []byte
	done int // bytes of buf that have been parsed
}

func (b *backlog) len() int { return len(b.buf) - b.done }

func (b *backlog) bytes() []byte { return b.buf[b.done:] }

// add appends a copy of p.
func (b *backlog) add(p []byte, spare *spareBuffers) {
	if len(p) == 0 {
		return
	}
	if b.buf == nil {
		b.buf = spare.get()
	}
	if b.done > 0 && len(b.buf)+len(p) > cap(b.buf) {
		b.buf = b.buf[:copy(b.buf, b.buf[b.done:])]
		b.done = 0
	}
	b.buf = append(b.buf, p...)
}

// discard drops the first n bytes, and the memory with the last.
func (b *backlog) discard(n int, spare *spareBuffers) {
	b.done += n
	if b.done == len(b.buf) && b.buf != nil {
		spare.put(b.buf)
		b.buf, b.done = nil, 0
	}
}
