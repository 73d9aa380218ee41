// Package tunnel is one end of a tunnel, without its sockets: frames in, events out; calls in, frames out.
//
// It is wire/tunnel of the Python program in Go, and the golden vectors of that program's tests hold both to the
// same rules, which stand in docs/design/0036-tunnel.md. It knows no socket and no clock, and is not safe for
// several goroutines at once.
package tunnel

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Subprotocol names the frames with credit.
const Subprotocol = "kohakuriver.tunnel.v2"

const (
	HeaderBytes      = 8
	MaxPayloadBytes  = 65536
	MaxFrameBytes    = HeaderBytes + MaxPayloadBytes
	MaxDatagramBytes = 65507
	MaxSentenceBytes = 512
)

type FrameType uint8

const (
	Connect FrameType = 1 + iota
	Connected
	Data
	Close
	Error
	Ping
	Pong
	Window
)

type Transport uint8

const (
	TCP Transport = iota
	UDP
)

type header struct {
	kind      FrameType
	transport Transport
	id        uint32
	port      uint16
}

// Breach is what ends a tunnel: the other end does not keep to the rules.
type Breach string

func (b Breach) Error() string { return string(b) }

func readHeader(frame []byte) (header, error) {
	if len(frame) < HeaderBytes || len(frame) > MaxFrameBytes {
		return header{}, Breach(fmt.Sprintf("a frame has %d to %d bytes, not %d", HeaderBytes, MaxFrameBytes, len(frame)))
	}
	h := header{
		kind:      FrameType(frame[0]),
		transport: Transport(frame[1]),
		id:        binary.BigEndian.Uint32(frame[2:]),
		port:      binary.BigEndian.Uint16(frame[6:]),
	}
	if h.transport > UDP {
		return header{}, Breach(fmt.Sprintf("a frame names transport %d; 0 is TCP and 1 is UDP", h.transport))
	}
	return h, nil
}

func (h header) append(frame []byte) []byte {
	frame = append(frame, byte(h.kind), byte(h.transport))
	frame = binary.BigEndian.AppendUint32(frame, h.id)
	return binary.BigEndian.AppendUint16(frame, h.port)
}

// cutSentence returns at most MaxSentenceBytes of it, cut between two characters.
func cutSentence(sentence string) string {
	if len(sentence) <= MaxSentenceBytes {
		return sentence
	}
	end := MaxSentenceBytes
	for end > 0 && !utf8.RuneStart(sentence[end]) {
		end--
	}
	return sentence[:end]
}

// readSentence makes text that can be shown: it was written by who may be nobody's friend.
func readSentence(payload []byte) string {
	text := strings.ToValidUTF8(string(payload[:min(len(payload), MaxSentenceBytes)]), "")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}
