package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"syscall"

	"kohakuriver/tunnel-client/tunnel"
)

const (
	// readBufferBytes is what the kernel may hold of a connection to be read; it takes twice as much for it. With less
	// frames are not full.
	readBufferBytes = 64 << 10
	// unsentBytes may wait to be sent. This is without what is under way: a send buffer that holds both would make each
	// large write wait for an acknowledgement, which may take 40 ms.
	unsentBytes = 32 << 10
	// tcpNotSentLowat is the option for it, which the library does not name.
	tcpNotSentLowat = 25
)

// connection is a TCP stream. One goroutine dials and then reads the service's socket, one writes to it.
type connection struct {
	link    *link
	id      uint32
	room    chan struct{} // there may be room to send, or what was sent may be written
	arrived chan struct{} // there may be something in the inbox
	over    <-chan struct{}
	cancel  context.CancelFunc // closes over

	// What follows is guarded by the link's lock.
	inbox  inbox
	noMore bool
	isOver bool
	socket *net.TCPConn
	left   int // directions that use the socket
}

func (l *link) openConnection(ctx context.Context, event tunnel.Event) {
	ctx, cancel := context.WithCancel(ctx)
	c := &connection{
		link: l, id: event.ID, over: ctx.Done(), cancel: cancel,
		room: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
	}
	l.streams[event.ID] = c
	go c.serve(ctx, event.Port)
}

func (c *connection) received(data []byte) {
	c.inbox.add(data)
	nudge(c.arrived)
}

func (c *connection) finished() {
	c.noMore = true
	nudge(c.arrived)
}

func (c *connection) written() { nudge(c.room) }

func (c *connection) abandon() {
	if c.isOver {
		return
	}
	if c.socket != nil {
		c.socket.SetLinger(0) // the service is to see that this was no orderly end
	}
	c.end()
}

// end gives up what the connection holds.
func (c *connection) end() {
	c.isOver = true
	c.cancel()
	delete(c.link.streams, c.id)
	c.inbox.drop()
	if c.socket != nil {
		c.socket.Close()
	}
}

// fail resets the stream with a sentence.
func (c *connection) fail(sentence string) {
	c.link.locked(func() {
		if !c.isOver {
			c.link.end.Reset(c.id, sentence)
			c.abandon()
		}
	})
}

func (c *connection) serve(ctx context.Context, port uint16) {
	socket, err := c.dial(ctx, port)
	if err != nil {
		c.fail(sentenceOf(err, port))
		return
	}
	if c.adopt(socket) {
		go c.toService()
		c.fromService()
		c.leave()
	}
}

func (c *connection) dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.link.options.dialTimeout)
	defer cancel()
	socket, err := dialLoopback(ctx, "127.0.0.1", port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		if other, otherErr := dialLoopback(ctx, "::1", port); otherErr == nil {
			return other, nil
		}
	}
	return socket, err
}

func dialLoopback(ctx context.Context, host string, port uint16) (*net.TCPConn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return nil, err
	}
	socket := conn.(*net.TCPConn)
	// Left to itself the kernel takes megabytes for each connection that somebody does not read, out of the memory
	// of the sandbox. Where it refuses these sizes, its own will do.
	socket.SetReadBuffer(readBufferBytes)
	if raw, err := socket.SyscallConn(); err == nil {
		raw.Control(func(descriptor uintptr) {
			syscall.SetsockoptInt(int(descriptor), syscall.IPPROTO_TCP, tcpNotSentLowat, unsentBytes)
		})
	}
	return socket, nil
}

func sentenceOf(err error, port uint16) string {
	var number syscall.Errno
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens on port %d of the workload", port)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("port %d of the workload does not answer", port)
	case errors.As(err, &number):
		return fmt.Sprintf("port %d of the workload is not reached: %s", port, number.Error())
	}
	return fmt.Sprintf("port %d of the workload is not reached", port)
}

// adopt tells the other end that the connection is there; false where the stream is over already.
func (c *connection) adopt(socket *net.TCPConn) bool {
	l := c.link
	l.lock.Lock()
	defer l.lock.Unlock()
	if c.isOver {
		socket.Close()
		return false
	}
	c.socket = socket
	c.left = 2
	l.end.Connected(c.id)
	l.wakeWriter()
	return true
}

// leave ends the connection when both directions have ended.
func (c *connection) leave() {
	c.link.lock.Lock()
	defer c.link.lock.Unlock()
	c.left--
	if c.left == 0 && !c.isOver {
		c.end()
	}
}

// fromService reads the service's socket. It holds a buffer only while there is something to read.
func (c *connection) fromService() {
	raw, err := c.socket.SyscallConn()
	for err == nil && c.wait(func(end *tunnel.End) bool { return end.Room(c.id) > 0 }) {
		if err = waitReadable(raw); err != nil {
			break
		}
		buffer := c.link.takeBuffer(c.over)
		if buffer == nil {
			break
		}
		err = c.passOn(buffer)
		c.link.buffers <- buffer
	}
	if errors.Is(err, io.EOF) {
		c.link.locked(func() { c.link.end.Finish(c.id) })
	} else if err != nil {
		c.fail("the service broke the connection off")
	}
}

// passOn reads once, and returns when what was read has been written or is of no use any more.
func (c *connection) passOn(buffer []byte) error {
	l := c.link
	l.lock.Lock()
	room := min(l.end.Room(c.id), len(buffer))
	l.lock.Unlock()
	if room == 0 {
		return nil
	}
	n, err := c.socket.Read(buffer[:room])
	if n > 0 {
		l.locked(func() { l.end.Send(c.id, buffer[:n]) })
		c.wait(func(end *tunnel.End) bool { return end.Waiting(c.id) == 0 })
	}
	return err
}

// wait returns true when it is so, and false when the connection is over.
func (c *connection) wait(isSo func(*tunnel.End) bool) bool {
	for {
		c.link.lock.Lock()
		over, so := c.isOver, isSo(c.link.end)
		c.link.lock.Unlock()
		if over || so {
			return !over
		}
		select {
		case <-c.room:
		case <-c.over:
			return false
		}
	}
}

// toService writes what arrives to the service's socket, and gives credit for what the socket took.
func (c *connection) toService() {
	for {
		chunks, over := c.nextChunks()
		if over {
			break
		}
		if chunks == nil {
			select {
			case <-c.arrived:
				continue
			case <-c.over:
				return
			}
		}
		written := net.Buffers(slices.Clone(chunks))
		n, err := written.WriteTo(c.socket)
		recycle(chunks)
		if err != nil {
			c.fail("the service broke the connection off")
			return
		}
		c.link.locked(func() { c.link.end.Take(c.id, int(n)) })
	}
	c.socket.CloseWrite()
	c.leave()
}

// nextChunks returns nil where there are none now; over tells that there will be none.
func (c *connection) nextChunks() (chunks [][]byte, over bool) {
	c.link.lock.Lock()
	defer c.link.lock.Unlock()
	chunks = c.inbox.take()
	return chunks, chunks == nil && c.noMore
}

// waitReadable returns when there is something to read or an end. It needs no buffer while it waits, since a thousand
// idle connections would need a thousand. The kernel tells an error once, so it is the one that this returns.
func waitReadable(raw syscall.RawConn) error {
	var peeked [1]byte
	var err error
	waited := raw.Read(func(descriptor uintptr) bool {
		for {
			_, _, err = syscall.Recvfrom(int(descriptor), peeked[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	return errors.Join(waited, err)
}
