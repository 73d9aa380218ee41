package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/coder/websocket"

	"kohakuriver/tunnel-client/tunnel"
)

const (
	// growthBytes: by which windows may grow in a sandbox, whose memory is limited.
	growthBytes   = 8 << 20
	datagramBytes = 1 << 20
	// buffersAtOnce bounds what was read from sockets and is not written, whatever the number of streams.
	buffersAtOnce = 32
	// gatherBytes: frames that are ready go out in one write until they come to so much.
	gatherBytes = 192 << 10
	// flowsAskedEvery is how often it is looked which flows are idle, or a quarter of their limit if that is less.
	flowsAskedEvery = 5 * time.Second
)

// link is one tunnel to the runner. The lock is held for moments only, never while something is read or written.
type link struct {
	options options
	socket  *websocket.Conn
	conn    *runnerConn
	buffers chan []byte   // nil where none was made yet; who takes one is served in the order of asking
	toWrite chan struct{} // there may be something to write
	flowed  chan struct{} // there is a flow

	lock    sync.Mutex
	end     *tunnel.End
	streams map[uint32]stream
}

// stream is what the link holds of one: a connection or a flow.
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

func newLink(o options, socket *websocket.Conn, conn *runnerConn) *link {
	bounds := tunnel.DefaultBounds()
	bounds.Streams = o.streams
	bounds.GrowthBytes = growthBytes
	bounds.DatagramBytes = datagramBytes
	bounds.FlowIdle = o.flowIdle
	l := &link{
		options: o, socket: socket, conn: conn,
		buffers: make(chan []byte, buffersAtOnce),
		toWrite: make(chan struct{}, 1), flowed: make(chan struct{}, 1),
		end: tunnel.NewEnd(tunnel.IsAsked, true, bounds), streams: map[uint32]stream{},
	}
	for range buffersAtOnce {
		l.buffers <- nil
	}
	return l
}

// run serves the tunnel until it is lost. All its streams are over when it returns.
func (l *link) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer l.abandonAll()
	defer cancel(nil)
	go l.writeFrames(ctx, cancel)
	go l.watch(ctx, cancel)
	err := l.readFrames(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

func (l *link) abandonAll() {
	l.lock.Lock()
	defer l.lock.Unlock()
	for _, held := range l.streams {
		held.abandon()
	}
}

func (l *link) readFrames(ctx context.Context) error {
	buffer := make([]byte, tunnel.MaxFrameBytes+1)
	for {
		kind, message, err := l.socket.Reader(ctx)
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
		if err := l.receive(ctx, buffer[:length]); err != nil {
			return fmt.Errorf("the runner breaks the rules of the tunnel: %w", err)
		}
	}
}

func (l *link) receive(ctx context.Context, frame []byte) error {
	l.lock.Lock()
	defer l.lock.Unlock()
	event, err := l.end.Receive(frame)
	if err != nil {
		return err
	}
	if event.Kind == tunnel.StreamOpened {
		l.open(ctx, event)
	} else if held := l.streams[event.ID]; held != nil {
		tell(held, event)
	}
	l.wakeWriter()
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

func (l *link) open(ctx context.Context, event tunnel.Event) {
	if event.Transport == tunnel.UDP {
		l.openFlow(event)
		nudge(l.flowed)
		return
	}
	l.openConnection(ctx, event)
}

// writeFrames is the only one that writes. A frame is copied out of the end, so the lock is free while it is sent.
func (l *link) writeFrames(ctx context.Context, cancel context.CancelCauseFunc) {
	buffer := make([]byte, 0, tunnel.MaxFrameBytes)
	for {
		if err := l.writeReady(ctx, buffer); err != nil {
			cancel(fmt.Errorf("the runner went: %w", err))
			return
		}
		select {
		case <-l.toWrite:
		case <-ctx.Done():
			return
		}
	}
}

// writeReady writes all frames that there are, in few writes.
func (l *link) writeReady(ctx context.Context, buffer []byte) error {
	gathered := 0
	for {
		l.conn.gather()
		frame, ok := l.nextFrame(buffer[:0])
		if !ok && gathered > 0 { // who was told that its frame is written may have more
			runtime.Gosched()
			frame, ok = l.nextFrame(buffer[:0])
		}
		if ok {
			if err := l.socket.Write(ctx, websocket.MessageBinary, frame); err != nil {
				return err
			}
			gathered += len(frame)
		}
		if !ok || gathered >= gatherBytes {
			if err := l.conn.flush(); err != nil {
				return err
			}
			gathered = 0
		}
		if !ok {
			return nil
		}
	}
}

func (l *link) nextFrame(buffer []byte) ([]byte, bool) {
	l.lock.Lock()
	defer l.lock.Unlock()
	id, frame, ok := l.end.NextFrame(buffer)
	if held := l.streams[id]; held != nil {
		held.written()
	}
	return frame, ok
}

func (l *link) wakeWriter() { nudge(l.toWrite) }

// watch looks after silence and idle flows. It sleeps until one of them can be.
func (l *link) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	life := tunnel.Life{PingAfter: l.options.pingAfter, EndAfter: l.options.endAfter}
	for {
		now := l.conn.heard.now()
		life.Heard(l.conn.heard.last())
		switch life.Due(now) {
		case tunnel.EndDue:
			cancel(errors.New("nothing was heard of the runner"))
			return
		case tunnel.PingDue:
			l.locked(l.end.Ping)
		}
		wait := life.WakesAt() - now
		if l.endIdleFlows(now) {
			wait = min(wait, flowsAskedEvery, l.options.flowIdle/4)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.flowed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// endIdleFlows tells whether there are flows.
func (l *link) endIdleFlows(now time.Duration) bool {
	l.lock.Lock()
	defer l.lock.Unlock()
	for _, id := range l.end.Tick(now) {
		if held := l.streams[id]; held != nil {
			held.abandon()
		}
		l.wakeWriter()
	}
	return l.end.HasFlows()
}

// locked does something with the end, which may give it something to write.
func (l *link) locked(do func()) {
	l.lock.Lock()
	do()
	l.lock.Unlock()
	l.wakeWriter()
}

// takeBuffer returns one of the buffers for reading from sockets, or nil when the tunnel is over.
func (l *link) takeBuffer(over <-chan struct{}) []byte {
	select {
	case buffer := <-l.buffers:
		if buffer == nil {
			buffer = make([]byte, tunnel.MaxPayloadBytes)
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
