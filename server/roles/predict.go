package roles

import (
	"context"
	"path/filepath"

	"github.com/headrace/headrace/predict"
	"github.com/headrace/headrace/predict/alert"
	"github.com/headrace/headrace/predict/workorder"
	"github.com/headrace/headrace/signal"
)

// maintenance is the way from features to work orders.
type maintenance struct {
	worker *predict.Worker
	alerts *alert.Store
	orders *workorder.Book
}

// besideLake is a file that lies where the lake and its registry do.
func (p *process) besideLake(name string) string {
	return filepath.Join(filepath.Dir(p.lakeDir()), name)
}

// openOrders opens alerts and order book, which the page shows too.
func (p *process) openOrders(ctx context.Context) error {
	if p.alerts != nil {
		return nil
	}
	var err error
	if p.alerts, err = alert.Open(ctx, p.besideLake("alerts.db")); err != nil {
		return err
	}
	p.stack.onStop("alerts", p.alerts.Close)
	if p.orders, err = workorder.Open(ctx, p.besideLake("orders.db"), workorder.Options{Clock: p.clock}); err != nil {
		return err
	}
	p.stack.onStop("order book", p.orders.Close)
	return nil
}

func (p *process) startPredict(ctx context.Context) error {
	if err := p.openRegistry(ctx); err != nil {
		return err
	}
	if err := p.openDuck(ctx); err != nil {
		return err
	}
	if err := p.openOrders(ctx); err != nil {
		return err
	}
	o := predict.Options{
		LakeDir: p.lakeDir(), DB: p.duck, Registry: p.registry, Alerts: p.alerts, Clock: p.clock,
		Log: p.Log.With("station", "predict"), Reached: p.Reached,
		LastService: func(ctx context.Context, asset signal.Asset, known signal.Micros) (signal.Micros, error) {
			services, err := p.orders.Services(ctx, asset)
			for _, s := range services {
				if s.RecordedAt <= known {
					return s.FinishedAt, err
				}
			}
			return 0, err
		},
	}
	if p.lake != nil {
		o.Turn, o.Wake = p.lake.Turn, p.lake.Wake()
	}
	worker, err := predict.New(ctx, o)
	if err != nil {
		return err
	}
	p.predict = &maintenance{worker, p.alerts, p.orders}
	courier := &workorder.Courier{Outbox: p.alerts, Orders: p.orders, Log: p.Log.With("station", "orders"), Reached: p.Reached}
	p.stack.run("predict", worker.Run)
	p.stack.run("work orders", courier.Run)
	return nil
}

// drained tells whether all that the lake holds has led where it leads.
func (m *maintenance) drained(ctx context.Context) (bool, error) {
	if m == nil {
		return true, nil
	}
	if done, err := m.worker.Drained(ctx); err != nil || !done {
		return false, err
	}
	waiting, err := m.alerts.Waiting(ctx)
	return len(waiting) == 0, err
}
