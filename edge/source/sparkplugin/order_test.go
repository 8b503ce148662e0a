package sparkplugin

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// However messages are mixed within the bound, and whichever are lost, they come
// out in order, once each, and the gaps are the losses.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 300 // more than seq has numbers
		var sent []int
		lost := 0
		for i := range n {
			// The last is there, or nothing would tell of those before it.
			if i < n-1 && rapid.IntRange(0, 9).Draw(t, "lost") == 0 {
				lost++
				continue
			}
			sent = append(sent, i)
		}
		want := slices.Clone(sent)
		for i := 0; i < len(sent); i += 8 {
			block := sent[i:min(i+8, len(sent))]
			copy(block, rapid.Permutation(block).Draw(t, "mixed"))
		}
		var o order[int]
		o.reset(255) // an NBIRTH before seq 0
		at := time.Unix(0, 0)
		var got []int
		gaps := 0
		drain := func() {
			for m, ok := o.ready(); ok; m, ok = o.ready() {
				got = append(got, m)
			}
		}
		for _, i := range sent {
			switch o.take(at, uint8(i), func() int { return i }) {
			case now:
				got = append(got, i)
			case late:
				t.Fatalf("%d is late", i)
			}
			drain()
			if len(o.waiting) >= maxAhead {
				t.Fatal("overflow")
			}
			at = at.Add(time.Millisecond)
			// The gap is given up long after all that is mixed has come.
			for due, ok := o.due(20 * time.Millisecond); ok && !due.After(at); due, ok = o.due(20 * time.Millisecond) {
				gaps += o.skip()
				drain()
			}
		}
		for len(o.waiting) > 0 {
			gaps += o.skip()
			drain()
		}
		if d := cmp.Diff(want, got); d != "" || gaps != lost {
			t.Errorf("%d gaps, want %d: %s", gaps, lost, d)
		}
	})
}

func TestOrderLateAndFull(t *testing.T) {
	var o order[uint8]
	at := time.Unix(100, 0)
	take := func(seq uint8) fate { return o.take(at, seq, func() uint8 { return seq }) }
	o.reset(0)
	if f := take(0); f != late {
		t.Errorf("the NBIRTH's own seq again: %d", f)
	}
	for i := range uint8(maxAhead) {
		if _, full := o.due(time.Hour); full != (i > 0) {
			t.Errorf("%d wait", i)
		}
		take(2 + i)
	}
	if due, _ := o.due(time.Hour); due.After(at) {
		t.Error("more than the bound wait")
	}
	if f := take(3); f != late {
		t.Errorf("one that waits, again: %d", f)
	}
	if gap := o.skip(); gap != 1 {
		t.Errorf("gap of %d", gap)
	}
	if f := take(1); f != late {
		t.Errorf("one that was given up: %d", f)
	}
	o.forget()
	if f := take(77); f != now {
		t.Errorf("the first after a reconnect: %d", f)
	}
}
