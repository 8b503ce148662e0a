package roles

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// stack runs the parts of a process. Parts start in order, each on what is
// below it, and stop from the top down, so that what still flows has somewhere
// to go.
type stack struct {
	mu     sync.Mutex
	parts  []*part
	failed chan error
}

type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

func newStack() *stack { return &stack{failed: make(chan error, 1)} }

// run adds a part. The stack waits for it in stop; an error of its own ends
// the process.
func (s *stack) run(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	s.parts = append(s.parts, p)
	s.mu.Unlock()
	go func() {
		defer close(p.done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			select {
			case s.failed <- fmt.Errorf("%s: %w", name, err):
			default: // the first failure is the cause
			}
		}
	}()
}

// onStop adds what only needs to be closed when its turn comes.
func (s *stack) onStop(name string, f func() error) {
	s.run(name, func(ctx context.Context) error {
		<-ctx.Done()
		return f()
	})
}

// stop ends the parts, last one first, and waits for each.
func (s *stack) stop() {
	s.mu.Lock()
	parts := s.parts
	s.parts = nil
	s.mu.Unlock()
	for _, part := range slices.Backward(parts) {
		part.cancel()
		<-part.done
	}
}
