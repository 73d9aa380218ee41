package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// hearing is when something was heard last, since it was made. Any inbound byte counts.
type hearing struct {
	began time.Time
	at    atomic.Int64
}

func newHearing() *hearing { return &hearing{began: time.Now()} }

func (h *hearing) now() time.Duration { return time.Since(h.began) }

func (h *hearing) last() time.Duration { return time.Duration(h.at.Load()) }

// runnerConn is the connection to the runner. What is written between gather and flush goes out in one piece: the
// WebSocket writes each frame in pieces of 4 KiB.
type runnerConn struct {
	net.Conn
	heard *hearing

	lock     sync.Mutex
	gathers  bool
	gathered []byte
}

func (c *runnerConn) Read(into []byte) (int, error) {
	n, err := c.Conn.Read(into)
	if n > 0 {
		c.heard.at.Store(int64(c.heard.now()))
	}
	return n, err
}

func (c *runnerConn) Write(data []byte) (int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if !c.gathers {
		return c.Conn.Write(data)
	}
	c.gathered = append(c.gathered, data...)
	return len(data), nil
}

func (c *runnerConn) gather() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.gathers = true
}

func (c *runnerConn) flush() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.gathers = false
	if len(c.gathered) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.gathered)
	c.gathered = c.gathered[:0]
	return err
}
