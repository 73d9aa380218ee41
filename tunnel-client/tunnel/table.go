package tunnel

import (
	"container/list"
	"time"
)

type Role uint8

const (
	// Opens is the end that sends CONNECT.
	Opens Role = iota
	// IsAsked is the end that dials: a client in its sandbox.
	IsAsked
)

// Bounds of one end; wire/tunnel/table.py says what each is for.
type Bounds struct {
	Streams       int
	Opening       int
	GrowthBytes   int
	FrameBytes    int
	FlowDatagrams int
	FlowBytes     int
	DatagramBytes int
	FlowIdle      time.Duration
}

func DefaultBounds() Bounds {
	return Bounds{
		Streams: 1024, Opening: 64, GrowthBytes: 16 << 20, FrameBytes: MaxPayloadBytes, FlowDatagrams: 64,
		FlowBytes: 256 << 10, DatagramBytes: 4 << 20, FlowIdle: time.Minute,
	}
}

// table holds the streams of one end. A stream stands in a queue at most once, and in none when it is gone.
type table struct {
	role          Role
	hasCredit     bool
	bounds        Bounds
	streams       map[uint32]*stream
	flows         *idleFlows
	opening       int
	unread        int
	datagramBytes int
	growth        growthBudget
	lastID        uint32

	unopened, urgent, turns *queue
}

func newTable(role Role, hasCredit bool, bounds Bounds) *table {
	return &table{
		role: role, hasCredit: hasCredit, bounds: bounds, growth: newGrowthBudget(bounds.GrowthBytes),
		streams: map[uint32]*stream{}, flows: newIdleFlows(bounds.FlowIdle),
		unopened: newQueue(), urgent: newQueue(), turns: newQueue(),
	}
}

func (t *table) isFull() bool { return len(t.streams) >= t.bounds.Streams }

func (t *table) nextID() uint32 {
	for {
		t.lastID++
		if t.streams[t.lastID] == nil {
			return t.lastID
		}
	}
}

func (t *table) add(id uint32, transport Transport, port uint16, phase phase) *stream {
	s := &stream{id: id, transport: transport, port: port, phase: phase, credit: unlimited}
	if t.hasCredit && transport == TCP {
		s.credit = FirstWindowBytes
		s.window = newReceiveWindow(&t.growth)
	}
	t.streams[id] = s
	if s.isFlow() {
		t.flows.touch(id)
	}
	return s
}

func (t *table) remove(s *stream) {
	delete(t.streams, s.id)
	s.unopenedPlace.leave()
	s.urgentPlace.leave()
	s.turnPlace.leave()
	t.leaveOpening(s)
	t.dropWaiting(s)
	t.flows.forget(s.id)
	t.unread -= s.unread
	if s.window != nil {
		s.window.close()
	}
}

func (t *table) leaveOpening(s *stream) {
	if s.phase == opening && t.role == Opens {
		t.opening--
	}
}

func (t *table) dropWaiting(s *stream) {
	if s.isFlow() {
		t.datagramBytes -= s.waiting
	}
	s.pieces = nil
	s.waiting = 0
}

// holdDatagram: the oldest of a flow give way to a new one; a new one gives way to those of other flows.
func (t *table) holdDatagram(s *stream, datagram []byte) bool {
	t.flows.touch(s.id)
	if t.datagramBytes+len(datagram) > t.bounds.DatagramBytes {
		return false
	}
	s.hold(datagram)
	t.datagramBytes += len(datagram)
	for len(s.pieces) > t.bounds.FlowDatagrams || s.waiting > t.bounds.FlowBytes {
		t.datagramBytes -= len(s.firstPiece())
	}
	return true
}

// maySend: with credit the end that opens need not wait for CONNECTED, since what it sends is bounded and held.
func (t *table) maySend(s *stream) bool {
	if s.phase == open {
		return !s.answerDue
	}
	return s.phase == opening && t.role == Opens && t.hasCredit
}

// queue lets a stream have a turn, if it has something to say and may.
func (t *table) queue(s *stream) {
	if t.maySend(s) && (len(s.pieces) > 0 || (s.finishing && !s.saidEnd)) {
		t.turns.add(&s.turnPlace, s)
	}
}

// idleFlows are flows in the order of their last datagram. Only idle knows the time, so it is asked now and then.
type idleFlows struct {
	limit  time.Duration
	order  *list.List // of *flowSince, the longest silent first
	places map[uint32]*list.Element
}

type flowSince struct {
	id     uint32
	active bool // since idle was asked last
	since  time.Duration
}

func newIdleFlows(limit time.Duration) *idleFlows {
	return &idleFlows{limit: limit, order: list.New(), places: map[uint32]*list.Element{}}
}

func (f *idleFlows) touch(id uint32) {
	place := f.places[id]
	if place == nil {
		f.places[id] = f.order.PushBack(&flowSince{id: id, active: true})
		return
	}
	flow := place.Value.(*flowSince)
	if !flow.active {
		flow.active = true
		f.order.MoveToBack(place)
	}
}

func (f *idleFlows) forget(id uint32) {
	if place := f.places[id]; place != nil {
		f.order.Remove(place)
		delete(f.places, id)
	}
}

// idle returns those that have been silent for so long; each is forgotten.
func (f *idleFlows) idle(now time.Duration) []uint32 {
	for place := f.order.Back(); place != nil && place.Value.(*flowSince).active; place = place.Prev() {
		flow := place.Value.(*flowSince)
		flow.active, flow.since = false, now
	}
	var silent []uint32
	for first := f.order.Front(); first != nil; first = f.order.Front() {
		flow := first.Value.(*flowSince)
		if now-flow.since < f.limit {
			break
		}
		silent = append(silent, flow.id)
		f.forget(flow.id)
	}
	return silent
}
