package tunnel

import "time"

type Due uint8

const (
	NothingDue Due = iota
	PingDue
	EndDue
)

// Life tells whether the other end is still there, by what is heard of it. Any inbound byte counts as life. One
// PING is due for each PingAfter of silence; the end is due after EndAfter.
type Life struct {
	PingAfter, EndAfter time.Duration
	heardAt             time.Duration
	pings               time.Duration
}

// Heard may be told the same time again.
func (l *Life) Heard(at time.Duration) {
	if at > l.heardAt {
		l.heardAt, l.pings = at, 0
	}
}

func (l *Life) Due(now time.Duration) Due {
	silent := now - l.heardAt
	switch {
	case silent >= l.EndAfter:
		return EndDue
	case silent >= l.PingAfter*(l.pings+1):
		l.pings = silent / l.PingAfter
		return PingDue
	}
	return NothingDue
}

// WakesAt is when to ask again, if nothing is heard until then.
func (l *Life) WakesAt() time.Duration {
	return l.heardAt + min(l.EndAfter, l.PingAfter*(l.pings+1))
}
