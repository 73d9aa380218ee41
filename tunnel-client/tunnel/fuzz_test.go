package tunnel

import (
	"encoding/binary"
	"testing"
	"time"
)

// framesOf reads data as messages, each after its length. A byte above 0xf0 in its place asks for a frame to be
// written, or for time to pass.
func framesOf(data []byte, frame func([]byte) bool, write, tick func()) {
	for len(data) > 0 {
		length := int(data[0])
		data = data[1:]
		switch {
		case length > 0xf8:
			tick()
		case length > 0xf0:
			write()
		case length == 0xf0:
			large := make([]byte, 17000)
			copy(large, data)
			data = data[min(len(data), HeaderBytes):]
			if !frame(large) {
				return
			}
		default:
			length = min(length, len(data))
			if !frame(data[:length:length]) {
				return
			}
			data = data[length:]
		}
	}
}

func frame(kind FrameType, transport Transport, id uint32, payload ...byte) []byte {
	made := append(header{kind, transport, id, 80}.append(nil), payload...)
	return append([]byte{byte(len(made))}, made...)
}

// No input makes an end fail, grow beyond its bounds, or act for a stream that was not opened.
func FuzzEnd(f *testing.F) {
	all := []byte{}
	for kind := Connect; kind <= Window+1; kind++ {
		all = append(all, frame(kind, TCP, 1)...)
		all = append(all, frame(kind, UDP, 2, 'a')...)
		all = append(all, frame(kind, TCP, 3, binary.BigEndian.AppendUint32(nil, 1000)...)...)
	}
	for asked := range 2 {
		for credit := range 2 {
			f.Add(asked == 1, credit == 1, all)
			f.Add(asked == 1, credit == 1, append(append(all[:0:0], all...), all...))
		}
	}
	f.Add(true, true, append(frame(Connect, TCP, 7), 0xf0, 3, 0, 0, 0, 0, 7, 0, 80, 0xf0, 3, 0, 0, 0, 0, 7, 0, 80, 0xf1, 0xff))
	f.Fuzz(func(t *testing.T, asked, credit bool, data []byte) {
		bounds := DefaultBounds()
		bounds.Streams, bounds.GrowthBytes = 4, 64<<10
		role := Opens
		if asked {
			role = IsAsked
		}
		end := NewEnd(role, credit, bounds)
		known := map[uint32]bool{}
		unread := map[uint32]int{}
		if !asked {
			for range 3 {
				id, _ := end.Open(TCP, 80)
				known[id] = true
			}
		}
		now := time.Duration(0)
		receive := func(message []byte) bool {
			event, err := end.Receive(message)
			if err != nil {
				return false
			}
			switch event.Kind {
			case StreamOpened:
				known[event.ID] = true
				unread[event.ID] = 0
				end.Connected(event.ID)
			case StreamReceived:
				if event.ID%2 == 1 {
					end.Take(event.ID, len(event.Data))
				} else if message[1] == byte(TCP) {
					unread[event.ID] += len(event.Data)
				}
			}
			if event.Kind != Nothing && !known[event.ID] {
				t.Fatalf("an event of the stream %d, which nobody opened", event.ID)
			}
			if end.Len() > bounds.Streams {
				t.Fatalf("%d streams", end.Len())
			}
			end.Send(event.ID, []byte("answer"))
			return true
		}
		write := func() {
			if _, frame, ok := end.NextFrame(nil); ok {
				if _, err := readHeader(frame); err != nil {
					t.Fatal(err)
				}
			}
		}
		framesOf(data, receive, write, func() { now += 40 * time.Second; end.Tick(now) })
		for id := range known {
			end.Reset(id, "over")
		}
		for {
			if _, _, ok := end.NextFrame(nil); !ok {
				break
			}
		}
		if credit && asked && (end.Len() != 0 || end.table.growth.left != bounds.GrowthBytes || end.table.datagramBytes != 0) {
			t.Fatalf("%d streams, %d bytes of growth and %d of datagrams are left", end.Len(), end.table.growth.left, end.table.datagramBytes)
		}
	})
}

func FuzzSentence(f *testing.F) {
	f.Add([]byte("a\x1b\xffé"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sentence := readSentence(data)
		if cut := cutSentence(sentence); len(cut) > MaxSentenceBytes || readSentence([]byte(cut)) != cut {
			t.Fatalf("%q", cut)
		}
	})
}
