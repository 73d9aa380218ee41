package main

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"kohakuriver/tunnel-client/tunnel"
)

// flow is the datagrams between one port here and one client there. What the socket does not take at once is lost,
// as it is on a network.
type flow struct {
	link   *link
	id     uint32
	socket *net.UDPConn
	raw    syscall.RawConn
	isOver bool // guarded by the link's lock
}

var datagrams = sync.Pool{New: func() any { return new([tunnel.MaxDatagramBytes]byte) }}

// openFlow is called with the lock; nothing of it waits.
func (l *link) openFlow(event tunnel.Event) {
	socket, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(event.Port)})
	if err != nil {
		l.end.Reset(event.ID, sentenceOf(err, event.Port))
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		socket.Close()
		l.end.Reset(event.ID, sentenceOf(err, event.Port))
		return
	}
	f := &flow{link: l, id: event.ID, socket: socket, raw: raw}
	l.streams[event.ID] = f
	l.end.Connected(event.ID)
	go f.fromService()
}

func (f *flow) received(datagram []byte) {
	f.raw.Write(func(descriptor uintptr) bool {
		syscall.Write(int(descriptor), datagram)
		return true
	})
}

func (f *flow) finished() {}

func (f *flow) written() {}

func (f *flow) abandon() {
	if !f.isOver {
		f.isOver = true
		delete(f.link.streams, f.id)
		f.socket.Close()
	}
}

func (f *flow) fromService() {
	for {
		datagram, err := f.read()
		if errors.Is(err, syscall.ECONNREFUSED) { // nothing listens now; it may later
			continue
		}
		if err != nil {
			return // it was abandoned
		}
		f.link.locked(func() { f.link.end.Send(f.id, datagram) })
	}
}

// read holds a large buffer for a moment only, not while it waits.
func (f *flow) read() (datagram []byte, err error) {
	waited := f.raw.Read(func(descriptor uintptr) bool {
		buffer := datagrams.Get().(*[tunnel.MaxDatagramBytes]byte)
		defer datagrams.Put(buffer)
		var n int
		for {
			n, _, err = syscall.Recvfrom(int(descriptor), buffer[:], syscall.MSG_DONTWAIT)
			if err != syscall.EINTR {
				break
			}
		}
		if err == nil {
			datagram = append([]byte{}, buffer[:n]...)
		}
		return err != syscall.EAGAIN
	})
	if waited != nil {
		return nil, waited
	}
	return datagram, err
}
