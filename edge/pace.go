package edge

import "time"

// Defaults of how a replay leaves live data its share.
const (
	DefaultReplayShare = 0.25

	firstPiece = 32 << 10
	minPiece   = 8 << 10
	maxPiece   = 512 << 10
	// A piece shall be on the way about so long: what is measured meanwhile waits
	// behind it.
	shortPiece = 50 * time.Millisecond
	longPiece  = 300 * time.Millisecond
	// maxPause bounds the wait after a piece: an outage is no measure of a link.
	maxPause = 10 * time.Second
)

// pace says how large the pieces of a replay are and how long it waits after each:
// what a piece takes until Kafka has it measures the link, of whose time the replay
// gets a share, and of whose bytes so many a second at most.
type pace struct {
	share     float64
	perSecond int64 // 0 is no bound
	piece     int   // bytes of the next one
}

func newPace(share float64, perSecond ...int64) *pace {
	p := &pace{share: share, piece: firstPiece}
	for _, b := range perSecond {
		if b > 0 && (p.perSecond == 0 || b < p.perSecond) {
			p.perSecond = b
		}
	}
	p.bound()
	return p
}

// bound keeps a piece below what a second may have.
func (p *pace) bound() {
	p.piece = min(max(p.piece, minPiece), maxPiece)
	if p.perSecond > 0 {
		p.piece = int(min(int64(p.piece), max(p.perSecond, 1)))
	}
}

// after returns how long to wait after a piece of so many bytes that took so long.
func (p *pace) after(bytes int, took time.Duration) time.Duration {
	wait := time.Duration(float64(took) * (1/p.share - 1))
	wait = min(wait, maxPause)
	if p.perSecond > 0 {
		due := time.Duration(float64(bytes) / float64(p.perSecond) * float64(time.Second))
		wait = max(wait, due-took)
	}
	switch {
	case took < shortPiece:
		p.piece *= 2
	case took > longPiece:
		p.piece /= 2
	}
	p.bound()
	return wait
}
