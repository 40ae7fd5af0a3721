package server

// spareSize is the capacity of the buffers that are kept for reuse; nearly all pending input fits into one.
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

// pendingInput is the input of a session that was read and not parsed yet: what came after a command that is under way.
// The zero value is empty and has no memory.
type pendingInput struct {
	buf   []byte
	done  uint32 // bytes of buf that have been parsed
	ahead uint32 // bytes that were read only because the session was read on, see search
}

func (in *pendingInput) len() int { return len(in.buf) - int(in.done) }

func (in *pendingInput) bytes() []byte { return in.buf[in.done:] }

// add appends a copy of p.
func (in *pendingInput) add(p []byte, spare *spareBuffers) {
	if len(p) == 0 {
		return
	}
	if in.buf == nil {
		in.buf = spare.get()
	}
	if in.done > 0 && len(in.buf)+len(p) > cap(in.buf) {
		in.buf = in.buf[:copy(in.buf, in.buf[in.done:])]
		in.done = 0
	}
	in.buf = append(in.buf, p...)
}

// discard drops the first n bytes, and the memory with the last.
func (in *pendingInput) discard(n int, spare *spareBuffers) {
	in.done += uint32(n)
	if int(in.done) == len(in.buf) && in.buf != nil {
		spare.put(in.buf)
		in.buf, in.done = nil, 0
	}
}
