package tunnel

const (
	FirstWindowBytes   = 32 << 10
	usualWindowBytes   = 1 << 20
	LargestWindowBytes = 2 << 20
	maxCreditBytes     = 1 << 30
)

// receiveWindow is what came in on one stream and what may come. allowed + held + owed is its size at all times.
// held was not taken by the reader; owed was taken and not given again yet.
type receiveWindow struct {
	size, allowed, held, owed int
	budget                    *growthBudget
}

// growthBudget is by how much the windows of one end may be larger than the first ones, all together.
type growthBudget struct{ left, half int }

func newGrowthBudget(size int) growthBudget { return growthBudget{left: size, half: size / 2} }

// take tells whether a window of that size may double. Beyond the usual size it grows out of the first half only, so that
// a few large ones leave enough.
func (b *growthBudget) take(size int) bool {
	kept := 0
	if size >= usualWindowBytes {
		kept = b.half
	}
	if size+kept > b.left {
		return false
	}
	b.left -= size
	return true
}

func newReceiveWindow(budget *growthBudget) *receiveWindow {
	return &receiveWindow{size: FirstWindowBytes, allowed: FirstWindowBytes, budget: budget}
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
	if w.held*4 <= w.size && w.size < LargestWindowBytes && w.budget.take(w.size) {
		given += w.size
		w.size *= 2
	}
	w.owed = 0
	w.allowed += given
	return given
}

func (w *receiveWindow) close() {
	w.budget.left += w.size - FirstWindowBytes
	w.size = FirstWindowBytes
}
