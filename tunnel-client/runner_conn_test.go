package main

import (
	"net"
	"slices"
	"testing"
)

type recordedConn struct {
	net.Conn
	writes []string
}

func (c *recordedConn) Write(data []byte) (int, error) {
	c.writes = append(c.writes, string(data))
	return len(data), nil
}

func TestWhatIsWrittenWhileItGathersGoesOutInOneWrite(t *testing.T) {
	record := &recordedConn{}
	conn := &runnerConn{Conn: record, heard: newHearing()}
	conn.Write([]byte("a pong"))
	for _, round := range [][]string{{"a", "frame"}, {}, {"another"}} {
		conn.gather()
		for _, piece := range round {
			conn.Write([]byte(piece))
		}
		if err := conn.flush(); err != nil {
			t.Fatal(err)
		}
	}
	conn.Write([]byte("at once"))
	if want := []string{"a pong", "aframe", "another", "at once"}; !slices.Equal(record.writes, want) {
		t.Errorf("%q", record.writes)
	}
}
