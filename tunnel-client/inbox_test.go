package main

import (
	"bytes"
	"testing"
)

func TestWhatArrivesIsTakenInOrderAndInFullChunks(t *testing.T) {
	for _, sizes := range [][]int{{1}, {chunkBytes}, {chunkBytes + 1}, {1, chunkBytes, 1}, {65536}, {7, 7, 7, 40000}, {300000}} {
		var box inbox
		var sent, got []byte
		for _, size := range sizes {
			piece := bytes.Repeat([]byte{byte(len(sent))}, size)
			sent = append(sent, piece...)
			box.add(piece)
		}
		if most := len(sent)/chunkBytes + 1; len(box.chunks) > most {
			t.Errorf("%v: %d chunks", sizes, len(box.chunks))
		}
		for taken := box.take(); taken != nil; taken = box.take() {
			if len(taken) > chunksAtOnce {
				t.Errorf("%v: %d chunks at once", sizes, len(taken))
			}
			got = append(got, bytes.Join(taken, nil)...)
			recycle(taken)
		}
		if !bytes.Equal(sent, got) {
			t.Errorf("%v: %d bytes became %d", sizes, len(sent), len(got))
		}
	}
}

func TestManySmallFramesNeedNoMoreThanTheirBytes(t *testing.T) {
	var box inbox
	for range 32 << 10 {
		box.add([]byte{1})
	}
	if len(box.chunks) != 2 {
		t.Errorf("%d chunks hold 32 KiB", len(box.chunks))
	}
	box.drop()
	if box.take() != nil {
		t.Error("something is left")
	}
}
