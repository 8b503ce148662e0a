package pipeline

import "context"

// AtRest tells what [Worker.Drained] tells, without hurrying anything along.
func (w *Worker) AtRest(ctx context.Context) (bool, error) {
	for _, b := range w.bronzes {
		if done, err := b.drained(ctx); err != nil || !done {
			return false, err
		}
	}
	for _, f := range w.followers {
		if done, err := f.drained(ctx); err != nil || !done {
			return false, err
		}
	}
	return true, nil
}
