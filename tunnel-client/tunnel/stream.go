package tunnel

import "encoding/binary"

const (
	maxWaitingBytes = 64 << 10
	unlimited       = 1 << 62
)

type phase uint8

// The phases of a stream; the diagram stands in wire/tunnel/stream.py.
const (
	waiting phase = iota
	opening
	open
	fallen
)

type stream struct {
	id        uint32
	transport Transport
	port      uint16
	phase     phase
	credit    int
	window    *receiveWindow // nil for a flow, and where the tunnel knows no credit

	pieces  [][]byte
	waiting int
	unread  int
	grant   int

	sentence  string
	answerDue bool
	finishing bool
	saidEnd   bool
	heardEnd  bool

	unopenedPlace, urgentPlace, turnPlace place
}

func (s *stream) isFlow() bool { return s.transport == UDP }

// isOver tells whether nothing more may be sent, for all that the caller knows.
func (s *stream) isOver() bool { return s.finishing || s.phase == fallen }

// room is never more than what may be sent, so whatever waits can be written.
func (s *stream) room() int {
	if s.isOver() {
		return 0
	}
	return max(0, min(maxWaitingBytes, s.credit)-s.waiting)
}

func (s *stream) hold(piece []byte) {
	s.pieces = append(s.pieces, piece)
	s.waiting += len(piece)
}

func (s *stream) firstPiece() []byte {
	piece := s.pieces[0]
	s.pieces[0] = nil
	s.pieces = s.pieces[1:]
	if len(s.pieces) == 0 {
		s.pieces = nil
	}
	s.waiting -= len(piece)
	return piece
}

// nextPiece takes what one frame carries: a datagram, or at most that much of the first piece.
func (s *stream) nextPiece(most int) []byte {
	if s.isFlow() {
		return s.firstPiece()
	}
	piece := s.pieces[0]
	if len(piece) <= most {
		piece = s.firstPiece()
	} else {
		s.pieces[0] = piece[most:]
		piece = piece[:most]
		s.waiting -= len(piece)
	}
	s.credit -= len(piece)
	return piece
}

func (s *stream) frame(buffer []byte, kind FrameType, payload []byte) []byte {
	return append(header{kind, s.transport, s.id, s.port}.append(buffer), payload...)
}

func (s *stream) windowFrame(buffer []byte) []byte {
	amount := s.grant
	s.grant = 0
	return binary.BigEndian.AppendUint32(s.frame(buffer, Window, nil), uint32(amount))
}

// place is where a stream stands in a queue, or in none.
type place struct {
	stream     *stream
	prev, next *place
}

// queue holds each stream at most once, and lets it leave from anywhere.
type queue struct {
	ends place // a ring: ends.next is the first, ends.prev the last
}

func newQueue() *queue {
	q := &queue{}
	q.ends.prev, q.ends.next = &q.ends, &q.ends
	return q
}

func (q *queue) isEmpty() bool { return q.ends.next == &q.ends }

func (q *queue) add(p *place, s *stream) {
	if p.next != nil {
		return
	}
	p.stream = s
	p.prev, p.next = q.ends.prev, &q.ends
	q.ends.prev.next = p
	q.ends.prev = p
}

func (p *place) leave() {
	if p.next != nil {
		p.prev.next, p.next.prev = p.next, p.prev
		p.prev, p.next = nil, nil
	}
}

func (q *queue) pop() *stream {
	first := q.ends.next
	first.leave()
	return first.stream
}
