package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"

	"kohakuriver/tunnel-client/tunnel"
)

const (
	// growthBytes: by which windows may grow in a sandbox, whose memory is limited.
	growthBytes   = 4 << 20
	datagramBytes = 1 << 20
	// buffersAtOnce bounds what was read from sockets and is not written, whatever the number of streams.
	buffersAtOnce = 64
	// flowsAskedEvery is how often it is looked which flows are idle, or a quarter of their limit if that is less.
	flowsAskedEvery = 5 * time.Second
)

// session is one tunnel. The lock is held for moments only, never while something is read or written.
type session struct {
	options options
	socket  *websocket.Conn
	heard   *hearing
	buffers chan []byte   // nil where none was made yet; who takes one is served in the order of asking
	dials   chan struct{} // one for each that may dial at once
	toWrite chan struct{} // there may be something to write
	flowed  chan struct{} // there is a flow

	lock    sync.Mutex
	end     *tunnel.End
	streams map[uint32]stream
}

// stream is what the session holds of one: a connection or a flow.
type stream interface {
	// received takes bytes that came; they are the caller's again afterwards.
	received(data []byte)
	// finished says that the other end sends no more.
	finished()
	// written says that a frame of it was, so there may be room.
	written()
	// abandon ends it at once.
	abandon()
}

func newSession(o options, socket *websocket.Conn, heard *hearing) *session {
	bounds := tunnel.DefaultBounds()
	bounds.Streams = o.streams
	bounds.GrowthBytes = growthBytes
	bounds.DatagramBytes = datagramBytes
	bounds.FlowIdle = o.flowIdle
	s := &session{
		options: o, socket: socket, heard: heard,
		buffers: make(chan []byte, buffersAtOnce), dials: make(chan struct{}, o.dialAtOne),
		toWrite: make(chan struct{}, 1), flowed: make(chan struct{}, 1),
		end: tunnel.NewEnd(tunnel.IsAsked, true, bounds), streams: map[uint32]stream{},
	}
	for range buffersAtOnce {
		s.buffers <- nil
	}
	return s
}

// run serves the tunnel until it is lost. All its streams are over when it returns.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer s.abandonAll()
	defer cancel(nil)
	go s.writeFrames(ctx, cancel)
	go s.watch(ctx, cancel)
	err := s.readFrames(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

func (s *session) abandonAll() {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, held := range s.streams {
		held.abandon()
	}
}

func (s *session) readFrames(ctx context.Context) error {
	buffer := make([]byte, tunnel.MaxFrameBytes+1)
	for {
		kind, message, err := s.socket.Reader(ctx)
		if err != nil {
			return fmt.Errorf("the runner went: %w", err)
		}
		length, err := io.ReadFull(message, buffer)
		if err == nil || kind != websocket.MessageBinary {
			return errors.New("the runner sends what is no frame")
		}
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("the runner went: %w", err)
		}
		if err := s.receive(ctx, buffer[:length]); err != nil {
			return fmt.Errorf("the runner breaks the rules of the tunnel: %w", err)
		}
	}
}

func (s *session) receive(ctx context.Context, frame []byte) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	event, err := s.end.Receive(frame)
	if err != nil {
		return err
	}
	if event.Kind == tunnel.StreamOpened {
		s.open(ctx, event)
	} else if held := s.streams[event.ID]; held != nil {
		tell(held, event)
	}
	s.wakeWriter()
	return nil
}

func tell(held stream, event tunnel.Event) {
	switch event.Kind {
	case tunnel.StreamReceived:
		held.received(event.Data)
	case tunnel.StreamRoomAgain:
		held.written()
	case tunnel.StreamFinished:
		held.finished()
	case tunnel.StreamEnded, tunnel.StreamReset:
		held.abandon()
	}
}

func (s *session) open(ctx context.Context, event tunnel.Event) {
	if event.Transport == tunnel.UDP {
		s.openFlow(event)
		nudge(s.flowed)
		return
	}
	s.openConnection(ctx, event)
}

// writeFrames is the only one that writes. A frame is copied out of the end, so the lock is free while it is sent.
func (s *session) writeFrames(ctx context.Context, cancel context.CancelCauseFunc) {
	buffer := make([]byte, 0, tunnel.HeaderBytes+tunnel.MaxWriteBytes)
	for {
		frame, ok := s.nextFrame(buffer[:0])
		if !ok {
			select {
			case <-s.toWrite:
				continue
			case <-ctx.Done():
				return
			}
		}
		if err := s.socket.Write(ctx, websocket.MessageBinary, frame); err != nil {
			cancel(fmt.Errorf("the runner went: %w", err))
			return
		}
	}
}

func (s *session) nextFrame(buffer []byte) ([]byte, bool) {
	s.lock.Lock()
	defer s.lock.Unlock()
	id, frame, ok := s.end.NextFrame(buffer)
	if held := s.streams[id]; held != nil {
		held.written()
	}
	return frame, ok
}

func (s *session) wakeWriter() { nudge(s.toWrite) }

// watch looks after silence and idle flows. It sleeps until one of them can be.
func (s *session) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	life := tunnel.Life{PingAfter: s.options.pingAfter, EndAfter: s.options.endAfter}
	for {
		now := s.heard.now()
		life.Heard(s.heard.last())
		switch life.Due(now) {
		case tunnel.EndDue:
			cancel(errors.New("nothing was heard of the runner"))
			return
		case tunnel.PingDue:
			s.locked(s.end.Ping)
		}
		wait := life.WakesAt() - now
		if s.endIdleFlows(now) {
			wait = min(wait, flowsAskedEvery, s.options.flowIdle/4)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.flowed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// endIdleFlows tells whether there are flows.
func (s *session) endIdleFlows(now time.Duration) bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, id := range s.end.Tick(now) {
		if held := s.streams[id]; held != nil {
			held.abandon()
		}
		s.wakeWriter()
	}
	return s.end.HasFlows()
}

// locked does something with the end, which may give it something to write.
func (s *session) locked(do func()) {
	s.lock.Lock()
	do()
	s.lock.Unlock()
	s.wakeWriter()
}

// takeBuffer returns one of the buffers for reading from sockets, or nil when the tunnel is over.
func (s *session) takeBuffer(over <-chan struct{}) []byte {
	select {
	case buffer := <-s.buffers:
		if buffer == nil {
			buffer = make([]byte, tunnel.MaxWriteBytes)
		}
		return buffer
	case <-over:
		return nil
	}
}

func nudge(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
