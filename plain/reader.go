package plain

import "github.com/headrace/headrace/signal"

// maxPlaces bounds the topics that a reader remembers.
const maxPlaces = 1 << 16

// Reader reads messages as its set does, and remembers what their topics say. It
// is not safe for concurrent use.
type Reader struct {
	set    *Set
	places map[string]*place
}

// Reader returns one of the set.
func (s *Set) Reader() *Reader { return &Reader{set: s, places: map[string]*place{}} }

// Read is [Set.Read].
func (r *Reader) Read(topic string, payload []byte, arrived signal.Micros) (Message, error) {
	if err := checkSize(payload); err != nil {
		return Message{}, err
	}
	p := r.places[topic]
	if p == nil {
		found, err := r.set.place(topic)
		if err != nil {
			return Message{}, err
		}
		if len(r.places) >= maxPlaces {
			clear(r.places) // topics that name something new each time
		}
		p = &found
		r.places[topic] = p
	}
	return p.read(payload, arrived)
}
