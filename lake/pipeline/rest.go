package pipeline

import "context"

// AtRest tells what [Worker.Drained] tells, without hurrying anything along.
func (w *Worker) AtRest(ctx context.Context) (bool, error) {
	if done, err := w.bronze.drained(ctx); err != nil || !done {
		return false, err
	}
	for _, f := range w.followers {
		if done, err := f.drained(ctx); err != nil || !done {
			return false, err
		}
	}
	return true, nil
}
