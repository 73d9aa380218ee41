package main

import (
	"slices"
	"sync"
)

const (
	chunkBytes = 16 << 10
	// chunksAtOnce are written together: one write, and one WINDOW for all of them.
	chunksAtOnce = 8
)

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

// take returns the first chunks, nil where there are none. They are given back by recycle.
func (b *inbox) take() [][]byte {
	if len(b.chunks) <= chunksAtOnce {
		all := b.chunks
		b.chunks = nil
		return all
	}
	first := slices.Clone(b.chunks[:chunksAtOnce])
	clear(b.chunks[:chunksAtOnce])
	b.chunks = b.chunks[chunksAtOnce:]
	return first
}

func (b *inbox) drop() {
	recycle(b.chunks)
	b.chunks = nil
}

func recycle(used [][]byte) {
	for _, chunk := range used {
		chunks.Put((*[chunkBytes]byte)(chunk[:chunkBytes]))
	}
}
