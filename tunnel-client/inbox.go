package main

import "sync"

const chunkBytes = 16 << 10

// inbox holds what arrived for a socket that has not taken it, in full chunks: many small frames need no more than
// their bytes.
type inbox struct {
	chunks [][]byte
}

var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

func (b *inbox) add(data []byte) {
	for len(data) > 0 {
		last := len(b.chunks) - 1
		if last < 0 || len(b.chunks[last]) == chunkBytes {
			b.chunks = append(b.chunks, chunks.Get().(*[chunkBytes]byte)[:0])
			last++
		}
		fits := min(len(data), chunkBytes-len(b.chunks[last]))
		b.chunks[last] = append(b.chunks[last], data[:fits]...)
		data = data[fits:]
	}
}

// take returns the first chunk, nil where there is none. It is given back by recycle.
func (b *inbox) take() []byte {
	if len(b.chunks) == 0 {
		return nil
	}
	first := b.chunks[0]
	b.chunks[0] = nil
	b.chunks = b.chunks[1:]
	if len(b.chunks) == 0 {
		b.chunks = nil
	}
	return first
}

func (b *inbox) drop() {
	for chunk := b.take(); chunk != nil; chunk = b.take() {
		recycle(chunk)
	}
}

func recycle(chunk []byte) { chunks.Put((*[chunkBytes]byte)(chunk[:chunkBytes])) }
