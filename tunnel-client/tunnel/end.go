package tunnel

import (
	"encoding/binary"
	"fmt"
	"time"
)

const (
	MaxRefusals    = 1024
	maxUnreadBytes = 1 << 20
)

type EventKind uint8

const (
	Nothing EventKind = iota
	// StreamOpened: dial, then Connected, or Reset with the reason.
	StreamOpened
	StreamConnected
	// StreamReceived: bytes of a stream, or a datagram. Of a stream, say Take when they have been used.
	StreamReceived
	// StreamRoomAgain: the other end takes more, where it took nothing before.
	StreamRoomAgain
	// StreamFinished: the other end sends no more; it still reads.
	StreamFinished
	// StreamEnded: it is over, in order, in both directions at once.
	StreamEnded
	// StreamReset: it is over, not in order, with the reason.
	StreamReset
)

// Event is what an end tells its caller of one stream. Data lies in the frame that was received.
type Event struct {
	Kind      EventKind
	ID        uint32
	Transport Transport
	Port      uint16
	Data      []byte
	Sentence  string
}

type End struct {
	role     Role
	credit   bool
	table    *table
	signs    []FrameType
	refusals [][]byte
}

func NewEnd(role Role, credit bool, bounds Bounds) *End {
	return &End{role: role, credit: credit, table: newTable(role, credit, bounds)}
}

// Len is the number of streams.
func (e *End) Len() int { return len(e.table.streams) }

// HasFlows tells whether Tick is of use.
func (e *End) HasFlows() bool { return len(e.table.flows.places) > 0 }

// Open asks the other end for a connection; false where there are as many streams as may be.
func (e *End) Open(transport Transport, port uint16) (uint32, bool) {
	if e.table.isFull() {
		return 0, false
	}
	s := e.table.add(e.table.nextID(), transport, port, waiting)
	e.table.unopened.add(&s.unopenedPlace, s)
	return s.id, true
}

// Connected says that the connection that the other end asked for is there.
func (e *End) Connected(id uint32) {
	s := e.table.streams[id]
	if s != nil && s.phase == opening && e.role == IsAsked {
		s.phase = open
		s.answerDue = true
		e.table.urgent.add(&s.urgentPlace, s)
	}
}

// Room is how many bytes Send takes now; more after a frame of the stream was written, or with an event.
// A flow takes each datagram, and drops what is too much.
func (e *End) Room(id uint32) int {
	s := e.table.streams[id]
	if s == nil || s.isOver() {
		return 0
	}
	if s.isFlow() {
		return MaxDatagramBytes
	}
	if s.phase == open || (e.role == Opens && e.credit) {
		return s.room()
	}
	return 0
}

// Send sends at most Room bytes, or one datagram, and tells whether it holds data, until it was written or the
// stream is over. What is for a stream that is over is dropped.
func (e *End) Send(id uint32, data []byte) bool {
	s := e.table.streams[id]
	if s == nil || s.isOver() || len(data) > e.Room(id) || (len(data) == 0 && !s.isFlow()) {
		return false
	}
	held := true
	if s.isFlow() {
		held = e.table.holdDatagram(s, data)
	} else {
		s.hold(data)
	}
	e.table.queue(s)
	return held
}

// Waiting is how many bytes of what Send holds have not been written.
func (e *End) Waiting(id uint32) int {
	if s := e.table.streams[id]; s != nil {
		return s.waiting
	}
	return 0
}

// Finish sends no more after what waits. Without credit, and of a flow, this ends the other direction too.
func (e *End) Finish(id uint32) {
	if s := e.table.streams[id]; s != nil && !s.isOver() {
		s.finishing = true
		e.table.queue(s)
	}
}

// Reset ends both directions at once; there is no further event of the stream.
func (e *End) Reset(id uint32, sentence string) {
	s := e.table.streams[id]
	if s == nil || s.phase == fallen {
		return
	}
	if s.phase == waiting {
		e.table.remove(s)
		return
	}
	e.table.dropWaiting(s)
	e.table.leaveOpening(s)
	s.phase = fallen
	s.sentence = sentence
	e.table.urgent.add(&s.urgentPlace, s)
}

// Take says that the stream's reader has taken so many of the bytes that it received.
func (e *End) Take(id uint32, amount int) {
	s := e.table.streams[id]
	if s == nil || s.isFlow() || s.phase == fallen {
		return
	}
	amount = min(amount, s.unread)
	s.unread -= amount
	e.table.unread -= amount
	if s.window == nil || s.heardEnd {
		return
	}
	s.grant += s.window.take(amount)
	if s.grant > 0 && s.phase == open { // CONNECTED goes first
		e.table.urgent.add(&s.urgentPlace, s)
	}
}

func (e *End) Ping() { e.sign(Ping) }

// Tick ends the flows that are idle and returns them. To be called every few seconds.
func (e *End) Tick(now time.Duration) []uint32 {
	ended := e.table.flows.idle(now)
	over := ended[:0]
	for _, id := range ended {
		if !e.table.streams[id].isOver() {
			e.Finish(id)
			over = append(over, id)
		}
	}
	return over
}

// MayRead tells whether a tunnel without credit is read on.
func (e *End) MayRead() bool { return e.credit || e.table.unread < maxUnreadBytes }

// NextFrame appends what is to be written next to buffer and returns the id of its stream, 0 where it is of none.
func (e *End) NextFrame(buffer []byte) (id uint32, frame []byte, ok bool) {
	t := e.table
	switch {
	case len(e.signs) > 0:
		sign := e.signs[0]
		e.signs = e.signs[1:]
		return 0, header{kind: sign}.append(buffer), true
	case len(e.refusals) > 0:
		refusal := e.refusals[0]
		e.refusals = e.refusals[1:]
		return 0, append(buffer, refusal...), true
	case !t.urgent.isEmpty():
		s := t.urgent.pop()
		return s.id, e.urgentFrame(buffer, s), true
	case !t.unopened.isEmpty() && t.opening < t.bounds.Opening:
		s := t.unopened.pop()
		s.phase = opening
		t.opening++
		t.queue(s)
		return s.id, s.frame(buffer, Connect, nil), true
	case !t.turns.isEmpty():
		s := t.turns.pop()
		return s.id, e.turnFrame(buffer, s), true
	}
	return 0, buffer, false
}

func (e *End) urgentFrame(buffer []byte, s *stream) []byte {
	if s.phase == fallen {
		e.table.remove(s)
		return s.frame(buffer, Error, []byte(cutSentence(s.sentence)))
	}
	if s.answerDue {
		s.answerDue = false
		if s.grant > 0 {
			e.table.urgent.add(&s.urgentPlace, s)
		}
		e.table.queue(s)
		return s.frame(buffer, Connected, nil)
	}
	return s.windowFrame(buffer)
}

func (e *End) turnFrame(buffer []byte, s *stream) []byte {
	if len(s.pieces) == 0 {
		s.saidEnd = true
		if s.heardEnd || s.isFlow() || !e.credit {
			e.table.remove(s)
		}
		return s.frame(buffer, Close, nil)
	}
	piece := s.nextPiece(e.table.bounds.FrameBytes)
	if s.isFlow() {
		e.table.datagramBytes -= len(piece)
	}
	e.table.queue(s)
	return s.frame(buffer, Data, piece)
}

// Receive takes one frame. An error is a Breach, with which the caller ends the tunnel.
func (e *End) Receive(frame []byte) (Event, error) {
	h, err := readHeader(frame)
	if err != nil {
		return Event{}, err
	}
	switch {
	case h.kind == Connect:
		return e.receiveConnect(h)
	case h.kind == Ping:
		e.sign(Pong)
		return Event{}, nil
	case h.kind == Pong || h.kind < Connect || h.kind > Window:
		return Event{}, nil
	}
	s := e.table.streams[h.id]
	if s == nil || s.phase == fallen || s.phase == waiting {
		return Event{}, nil
	}
	if s.isFlow() && s.finishing { // the caller knows already that it is over
		if h.kind == Close || h.kind == Error {
			e.table.remove(s)
		}
		return Event{}, nil
	}
	return e.receiveOf(s, h.kind, frame[HeaderBytes:]), nil
}

func (e *End) receiveConnect(h header) (Event, error) {
	if e.role == Opens {
		return Event{}, Breach("CONNECT came to the end that opens")
	}
	if e.table.streams[h.id] != nil {
		return Event{}, Breach(fmt.Sprintf("CONNECT names the stream %d, which is in use", h.id))
	}
	if h.port == 0 {
		return Event{}, e.refuse(h, "port 0 is none that anything listens on")
	}
	if e.table.isFull() {
		return Event{}, e.refuse(h, fmt.Sprintf("%d connections are open, and no more may be", e.Len()))
	}
	e.table.add(h.id, h.transport, h.port, opening)
	return Event{Kind: StreamOpened, ID: h.id, Transport: h.transport, Port: h.port}, nil
}

func (e *End) refuse(h header, sentence string) error {
	if len(e.refusals) >= MaxRefusals {
		return Breach("more connections are asked for than refusals are read")
	}
	h.kind = Error
	e.refusals = append(e.refusals, append(h.append(nil), sentence...))
	return nil
}

func (e *End) receiveOf(s *stream, kind FrameType, payload []byte) Event {
	switch {
	case kind == Error:
		e.table.remove(s)
		return Event{Kind: StreamReset, ID: s.id, Sentence: readSentence(payload)}
	case kind == Connected:
		return e.receiveConnected(s)
	case e.role == Opens && s.phase == opening:
		return e.fall(s, "something came before CONNECTED")
	case kind == Data:
		return e.receiveData(s, payload)
	case kind == Close:
		return e.receiveClose(s)
	case s.window != nil:
		return e.receiveWindow(s, payload)
	}
	return Event{}
}

func (e *End) receiveConnected(s *stream) Event {
	if e.role != Opens || s.phase != opening {
		return e.fall(s, "CONNECTED came to a stream that waits for none")
	}
	e.table.leaveOpening(s)
	s.phase = open
	e.table.queue(s)
	return Event{Kind: StreamConnected, ID: s.id}
}

func (e *End) receiveData(s *stream, payload []byte) Event {
	if s.isFlow() {
		e.table.flows.touch(s.id)
		if len(payload) > MaxDatagramBytes {
			return Event{}
		}
		return Event{Kind: StreamReceived, ID: s.id, Data: payload}
	}
	if s.heardEnd {
		return e.fall(s, "data came after its end")
	}
	if s.window != nil && !s.window.receive(len(payload)) {
		return e.fall(s, "more data came than was allowed")
	}
	if len(payload) == 0 {
		return Event{}
	}
	s.unread += len(payload)
	e.table.unread += len(payload)
	return Event{Kind: StreamReceived, ID: s.id, Data: payload}
}

func (e *End) receiveClose(s *stream) Event {
	if s.isFlow() || !e.credit {
		e.table.remove(s)
		return Event{Kind: StreamEnded, ID: s.id}
	}
	if s.heardEnd {
		return Event{}
	}
	s.heardEnd = true
	if s.saidEnd {
		e.table.remove(s)
	}
	return Event{Kind: StreamFinished, ID: s.id}
}

func (e *End) receiveWindow(s *stream, payload []byte) Event {
	const sentence = "a WINDOW came that is none, or gives too much"
	if len(payload) != 4 {
		return e.fall(s, sentence)
	}
	amount := int(binary.BigEndian.Uint32(payload))
	if s.credit+amount > maxCreditBytes {
		return e.fall(s, sentence)
	}
	hadRoom := s.room() > 0
	s.credit += amount
	if s.room() > 0 && !hadRoom {
		return Event{Kind: StreamRoomAgain, ID: s.id}
	}
	return Event{}
}

func (e *End) fall(s *stream, sentence string) Event {
	e.Reset(s.id, sentence)
	return Event{Kind: StreamReset, ID: s.id, Sentence: sentence}
}

func (e *End) sign(kind FrameType) {
	for _, due := range e.signs {
		if due == kind {
			return
		}
	}
	e.signs = append(e.signs, kind)
}
