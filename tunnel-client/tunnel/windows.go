package tunnel

const (
	FirstWindowBytes   = 32 << 10
	LargestWindowBytes = 1 << 20
	maxCreditBytes     = 1 << 30
)

// receiveWindow is what came in on one stream and what may come. allowed + held + owed is its size at all times.
// held was not taken by the reader; owed was taken and not given again yet.
type receiveWindow struct {
	size, allowed, held, owed int
	growth                    *int // what is left by which the windows of this end may be larger than the first ones
}

func newReceiveWindow(growth *int) *receiveWindow {
	return &receiveWindow{size: FirstWindowBytes, allowed: FirstWindowBytes, growth: growth}
}

func (w *receiveWindow) receive(amount int) bool {
	if amount > w.allowed {
		return false
	}
	w.allowed -= amount
	w.held += amount
	return true
}

// take returns how much more the other end may send: mostly nothing yet, and half a window or more at a time.
func (w *receiveWindow) take(amount int) int {
	w.held -= amount
	w.owed += amount
	if w.owed*2 < w.size {
		return 0
	}
	given := w.owed
	// A reader that leaves less than a quarter lying is not what holds the sender back.
	if w.held*4 <= w.size && w.size < LargestWindowBytes && w.size <= *w.growth {
		*w.growth -= w.size
		given += w.size
		w.size *= 2
	}
	w.owed = 0
	w.allowed += given
	return given
}

func (w *receiveWindow) close() {
	*w.growth += w.size - FirstWindowBytes
	w.size = FirstWindowBytes
}
