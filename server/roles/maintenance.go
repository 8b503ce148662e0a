package roles

import (
	"context"
	"errors"
	"fmt"

	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/predict"
	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/predict/workorder"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/server"
	"github.com/headrace/headrace/signal"
)

// office answers the page's questions about maintenance from the stations of
// this process and the files beside the lake.
type office struct{ p *process }

func (o office) Risks(ctx context.Context) ([]server.Risk, error) {
	if o.p.predict == nil {
		return nil, nil
	}
	snap, err := o.p.registry.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	orders, err := o.p.orders.List(ctx, workorder.Filter{State: workorder.StateOpen})
	if err != nil {
		return nil, err
	}
	open := map[signal.Asset]string{}
	for _, order := range orders {
		open[order.Asset] = order.ID
	}
	faulty := map[signal.Path]bool{}
	for _, f := range o.p.predict.worker.Findings() {
		if f.Until == 0 {
			faulty[f.Path] = true
		}
	}
	var out []server.Risk
	for _, r := range o.p.predict.worker.Risks() {
		meta, _ := snap.Asset(r.Asset, r.Event)
		item := server.Risk{
			Asset: string(r.Asset), Class: meta.Class, Description: meta.Description, Owner: meta.Owner, Sensor: r.Sensor, Status: string(r.Status),
			EventTime: server.Moment(r.Event), AvailableTime: server.Moment(r.Available), Model: r.Model, Order: open[r.Asset],
			Trend: []server.TrendPoint{}, Contributions: []server.Contribution{},
		}
		switch r.Status {
		case model.Scored:
			score := r.Score
			item.Score, item.Status = &score, "healthy"
			if score > 1 {
				item.Status = "watch"
			}
			if item.Order != "" {
				item.Status = "alert"
			}
			if faulty[r.Asset.Sensor(r.Sensor)] || faulty[r.Asset.Sensor(r.Sensor+".rms")] {
				item.Status = "sensor_fault"
			}
		case model.Incomplete:
			item.Status = "unknown"
		case model.NoModel, model.NotRunning:
		}
		for _, t := range r.Trend {
			item.Trend = append(item.Trend, server.TrendPoint{T: float64(t.Event) / 1e6, Score: t.Score})
		}
		for _, c := range r.Contributions {
			item.Contributions = append(item.Contributions, server.Contribution(workorder.EvidenceOf(c.Feature, c.Value, c.Healthy, c.Z, c.Share)))
		}
		out = append(out, item)
	}
	return out, nil
}

func orderItem(o workorder.Order) server.Order {
	out := server.Order{
		ID: o.ID, Asset: string(o.Asset), Title: o.Title, Defect: o.Defect, FailureMode: o.FailureMode, Priority: o.Priority, State: o.State,
		Started: server.Moment(o.Started), Raised: server.Moment(o.Raised), CreatedAt: server.Moment(o.CreatedAt), Confidence: o.Confidence, Sure: o.Sure,
		Score: o.Score, Model: o.Model, Sensor: o.Window.Sensor, Window: server.Moment(o.Window.End), Evidence: []server.Contribution{}, ClosedAt: server.Moment(o.ClosedAt),
	}
	for _, e := range o.Evidence {
		out.Evidence = append(out.Evidence, server.Contribution(e))
	}
	if c := o.Closing; c != nil {
		out.Closing = &server.ClosingBody{Code: c.Code, FinishedAt: c.FinishedAt.Time(), Verdict: c.Verdict, By: c.By, Note: c.Note}
	}
	return out
}

func (o office) Orders(ctx context.Context) ([]server.Order, error) {
	list, err := o.p.orders.List(ctx, workorder.Filter{})
	out := make([]server.Order, 0, len(list))
	for _, order := range list {
		out = append(out, orderItem(order))
	}
	return out, err
}

func (o office) Order(ctx context.Context, id string) (server.Order, error) {
	order, err := o.p.orders.Get(ctx, id)
	return orderItem(order), officeError(err)
}

// officeError puts the order book's answers into the server's words.
func officeError(err error) error {
	var invalid *workorder.InvalidError
	switch {
	case errors.Is(err, workorder.ErrNoOrder):
		return server.ErrUnknown
	case errors.Is(err, workorder.ErrClosed):
		return &server.RefusedError{Reason: workorder.ErrClosed.Error(), Conflict: true}
	case errors.As(err, &invalid):
		return &server.RefusedError{Reason: invalid.Reason}
	}
	return err
}

func (o office) CloseOrder(ctx context.Context, id string, c server.Closing) (server.Order, error) {
	order, err := o.p.orders.CloseOrder(ctx, id, workorder.Closing{Code: c.Code, FinishedAt: c.FinishedAt, Verdict: c.Verdict, By: c.By, Note: c.Note})
	return orderItem(order), officeError(err)
}

// Spectrum draws the waveform that an order's evidence is of, or the nearest one
// that left the edge within a minute of it.
func (o office) Spectrum(ctx context.Context, id string) ([]byte, error) {
	order, err := o.p.orders.Get(ctx, id)
	if err != nil {
		return nil, officeError(err)
	}
	snap, err := o.p.registry.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	meta, _ := snap.Asset(order.Asset, order.Raised)
	w, at, err := o.waveform(ctx, order.Asset.Sensor(order.Window.Sensor), order.Window.End)
	if err != nil {
		return nil, err
	}
	title := fmt.Sprintf("%s, %s: envelope spectrum at %s", order.ID, order.Asset, at.Time().Format("2006-01-02 15:04:05"))
	return workorder.Spectrum(w, meta.RPM, meta.Bearing, title)
}

// nearWaveform is how far a waveform may lie from the window that it stands for.
const nearWaveform = signal.Micros(90 * 1_000_000)

func (o office) waveform(ctx context.Context, path signal.Path, end signal.Micros) (*record.Waveform, signal.Micros, error) {
	cat, err := catalog.Open(ctx, o.p.lakeDir())
	if err != nil {
		return nil, 0, err
	}
	from, err := cat.Relation("bronze.raw", catalog.Range{Column: "event_time", Min: end - nearWaveform, Max: end + nearWaveform},
		catalog.Range{Column: "path", Min: string(path), Max: string(path)})
	if errors.Is(err, catalog.ErrNoTable) {
		return nil, 0, server.ErrUnknown
	}
	if err != nil {
		return nil, 0, err
	}
	s, done, err := o.session(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	rows, err := s.Query(ctx, fmt.Sprintf(`SELECT epoch_us(event_time), rate, format, scale, samples FROM %s
		WHERE path = ? AND count >= 1024 AND abs(epoch_us(event_time) - %d) <= %d
		ORDER BY abs(epoch_us(event_time) + count / rate * 1e6 - %d) LIMIT 1`, from, end, nearWaveform, end), string(path))
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, 0, errors.Join(rows.Err(), server.ErrUnknown)
	}
	w := &record.Waveform{}
	var at signal.Micros
	err = rows.Scan(&at, &w.Rate, &w.Format, &w.Scale, &w.Samples)
	return w, at, err
}

// session is a session of the SQL engine while it is this one's turn; done ends
// both.
func (o office) session(ctx context.Context) (s *duck.Session, done func(), err error) {
	giveBack := func() {}
	if o.p.lake != nil {
		if giveBack, err = o.p.lake.Turn(ctx); err != nil {
			return nil, nil, err
		}
	}
	if s, err = o.p.duck.Session(ctx); err != nil {
		giveBack()
		return nil, nil, err
	}
	return s, func() { s.Close(); giveBack() }, nil
}

// Features reads the feature views as of a time.
func (o office) Features(ctx context.Context, asset signal.Asset, at, known signal.Micros) (server.Features, error) {
	out := server.Features{Asset: string(asset), At: server.Moment(at), Known: server.Moment(known), Vibration: []server.ChannelFeatures{}}
	s, done, err := o.session(ctx)
	if err != nil {
		return out, err
	}
	defer done()
	f, err := predict.ReadFeatures(ctx, s, o.p.lakeDir(), asset, at, known)
	for _, v := range f.Vibration {
		out.Vibration = append(out.Vibration, server.ChannelFeatures{
			Sensor: v.Sensor, Status: string(v.Status), EventTime: server.Moment(v.Event), AvailableTime: server.Moment(v.Available),
			Running: v.Running, Windows: v.Windows, Values: numbers(v.Values),
		})
	}
	p := f.Process
	out.Process = server.ProcessFeatures{
		Status: string(p.Status), EventTime: server.Moment(p.Event), AvailableTime: server.Moment(p.Available),
		Running: p.Running, State: p.State, HoursSinceService: server.Number(p.HoursSinceService), Means: numbers(p.Means),
	}
	return out, err
}

func numbers(values map[string]float64) map[string]server.Number {
	out := make(map[string]server.Number, len(values))
	for name, v := range values {
		out[name] = server.Number(v)
	}
	return out
}

func (o office) Service(ctx context.Context, asset signal.Asset) (server.Service, error) {
	out := server.Service{Asset: string(asset), Services: []server.ServiceItem{}}
	services, err := o.p.orders.Services(ctx, asset)
	for i, s := range services {
		if i == 0 {
			hours := o.p.clock.Now().Sub(s.FinishedAt.Time()).Hours()
			out.Hours = &hours
		}
		out.Services = append(out.Services, server.ServiceItem{Order: s.Order, Code: s.Code, FinishedAt: server.Moment(s.FinishedAt), RecordedAt: server.Moment(s.RecordedAt)})
	}
	return out, err
}

func (o office) Findings(context.Context) ([]server.Finding, error) {
	if o.p.predict == nil {
		return nil, nil
	}
	var out []server.Finding
	for _, f := range o.p.predict.worker.Findings() {
		state := "open"
		if f.Until != 0 {
			state = "ended"
		}
		out = append(out, server.Finding{
			Path: string(f.Path), Kind: f.Kind, State: state, Since: server.Moment(f.Since), Until: server.Moment(f.Until),
			Detected: server.Moment(f.Detected), Evidence: f.Evidence, Owner: f.Owner,
		})
	}
	return out, nil
}

func (o office) Egress(context.Context) (server.Egress, error) {
	o.p.mu.Lock()
	agents := o.p.agents
	o.p.mu.Unlock()
	var out server.Egress
	sums := map[egress.Class]*server.EgressClass{}
	for _, a := range agents {
		r := a.Egress()
		out.Births, out.Idle, out.Acks = out.Births+r.Births, out.Idle+r.Idle, out.Acks+r.Acks
		for class, f := range r.Classes {
			c := sums[class]
			if c == nil {
				c = &server.EgressClass{Class: string(class)}
				sums[class] = c
			}
			c.Readings, c.Raw, c.Data, c.Heartbeats = c.Readings+f.Readings, c.Raw+f.Raw, c.Data+f.Data, c.Heartbeats+f.Heartbeats
			c.Waveforms, c.Resent = c.Waveforms+f.Waveforms, c.Resent+f.Resent
			if w := a.Worst(); class == egress.Process && w.Path != "" && (c.MaxErrorPath == "" || w.Bands > c.MaxErrorBands) {
				c.MaxError, c.MaxErrorUnit, c.MaxErrorPath, c.MaxErrorBands = w.Value, w.Unit, string(w.Path), w.Bands
			}
			out.Sent += f.Sent()
			out.Raw += f.Raw
		}
	}
	out.Sent += out.Births + out.Idle + out.Acks
	if out.Raw > 0 {
		out.Saved = 1 - float64(out.Sent)/float64(out.Raw)
	}
	out.Classes = []server.EgressClass{}
	for _, class := range egress.Classes() {
		if c := sums[class]; c != nil {
			out.Classes = append(out.Classes, *c)
		}
	}
	return out, nil
}
