package predict

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/predict/alert"
	"github.com/headrace/headrace/predict/features"
	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/health"
	"github.com/headrace/headrace/twin/registry"
)

// Registry is the authority on assets, as this station needs it.
type Registry interface {
	Version(ctx context.Context) (int64, error)
	Snapshot(ctx context.Context) (*registry.Snapshot, error)
}

// Alerts takes predictions, in ascending order of event time for each channel;
// taking them again changes nothing.
type Alerts interface {
	Observe(ctx context.Context, predictions []model.Prediction, faulty func(signal.Asset, string) bool) (begun int, err error)
	// Local takes what the local rules of edges say, in any order, and again.
	Local(ctx context.Context, alarms []alert.Local) (begun int, err error)
	// Cursor is the newest event time that every known channel has seen.
	Cursor(ctx context.Context) (signal.Micros, error)
}

// Options set a Worker up; all but Log, Reached, Turn, Wake, Poll and LastService
// are required.
type Options struct {
	LakeDir  string
	DB       *duck.DB
	Registry Registry
	Alerts   Alerts
	Clock    signal.Clock // stamps what becomes available
	Log      *slog.Logger
	Reached  signal.Reached
	// Turn waits for the SQL engine, if others of the process use it too.
	Turn func(context.Context) (giveBack func(), err error)
	// Wake is signalled when the lake has news.
	Wake <-chan struct{}
	Poll time.Duration // how often it looks without; 0 is 500 ms
	// LastService is when an asset was repaired last, as far as was recorded at
	// known; 0 if never.
	LastService func(ctx context.Context, asset signal.Asset, known signal.Micros) (signal.Micros, error)
}

const (
	// horizon is how far back windows are kept in memory: what comes later than
	// that is averaged with less of its neighbours.
	horizon = signal.Micros(2 * 3600 * 1_000_000)
	// settled is how long a machine must have been running for its windows to
	// say something.
	settled = signal.Micros(10 * 1_000_000)
	// trend is how many scores a risk shows.
	trend = 60

	stateSensor  = "state"
	stateRunning = "running"
)

// Worker does the station's work.
type Worker struct {
	Options
	session    *duck.Session
	tables     map[string]*delta.Table
	silver     follow
	quarantine follow
	windows    follow
	monitor    *health.Monitor
	registry   *registry.Snapshot
	channels   map[channelKey]*channel
	states     map[signal.Asset][]stateAt
	models     map[channelKey]*trained
	process    process
	catalog    *catalog.Catalog
	published  map[faultKey]signal.Micros // Until of what gold.sensor_health has
	lastStamp  signal.Micros
	alarms     []alert.Local // of edges, not handed on yet

	mu       sync.Mutex // guards what others read
	risks    map[channelKey]*Risk
	findings []health.Finding
	counts   counts
	err      error
	resting  bool      // the last step found nothing new
	rest     [3]int64  // the versions that it had taken
	watched  [3]follow // by [Worker.Drained]
}

type channelKey struct {
	asset  signal.Asset
	sensor string
}

type faultKey struct {
	path  signal.Path
	kind  string
	since signal.Micros
}

type stateAt struct {
	at    signal.Micros
	state string
}

// channel is an acceleration channel.
type channel struct {
	history features.History
	touched map[signal.Micros]bool // windows whose features may have changed
	emitted map[signal.Micros]emitted
	pending []featureRow // not scored yet
}

type emitted struct {
	vector  features.Vector
	running bool
	windows int
}

// featureRow is a row of features.vibration.
type featureRow struct {
	event, available signal.Micros
	retracted        bool
	emitted
}

// asOf is the row as far as an as-of read needs it; seq is its place in the
// order of commits.
func (r *featureRow) asOf(seq int) features.Row {
	return features.Row{Event: r.event, Available: r.available, Retracted: r.retracted, Seq: int64(seq)}
}

// Risk is what is known of a channel now.
type Risk struct {
	model.Prediction
	Trend []Score
}

// Score is one score of a trend.
type Score struct {
	Event signal.Micros
	Score float64
}

type counts struct{ features, predictions, scored, models, episodes, findings, waiting, process int64 }

// New opens the tables and brings the memory up to what they hold.
func New(ctx context.Context, o Options) (*Worker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Poll == 0 {
		o.Poll = 500 * time.Millisecond
	}
	w := &Worker{
		Options: o, tables: map[string]*delta.Table{}, channels: map[channelKey]*channel{}, states: map[signal.Asset][]stateAt{},
		models: map[channelKey]*trained{}, published: map[faultKey]signal.Micros{}, risks: map[channelKey]*Risk{},
		silver: follow{name: tableSilver}, quarantine: follow{name: tableQuarantine}, windows: follow{name: tableWindows},
		watched: [3]follow{{name: tableSilver}, {name: tableQuarantine}, {name: tableWindows}},
	}
	w.monitor = health.New(func(p signal.Path, at signal.Micros) (signal.SensorMeta, bool) { return w.registry.Sensor(p, at) })
	var err error
	if w.registry, err = o.Registry.Snapshot(ctx); err != nil {
		return nil, fmt.Errorf("starting predictions: %w", err)
	}
	if err := w.openTables(ctx); err != nil {
		return nil, fmt.Errorf("starting predictions: %w", err)
	}
	if w.catalog, err = catalog.Open(ctx, o.LakeDir); err != nil {
		return nil, fmt.Errorf("starting predictions: %w", err)
	}
	return w, nil
}

// Run works until ctx ends. What fails is shown, and tried again with pauses.
func (w *Worker) Run(ctx context.Context) (err error) {
	if w.session, err = w.DB.Session(ctx); err != nil {
		return fmt.Errorf("starting predictions: %w", err)
	}
	defer w.session.Close()
	ready := false
	pause := w.Poll
	for ctx.Err() == nil {
		progress := false
		var err error
		if !ready {
			if err = w.restore(ctx); err == nil {
				ready = true
			}
		}
		if ready {
			progress, err = w.step(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		w.mu.Lock()
		w.err = err
		w.resting = ready && err == nil && !progress
		w.rest = [3]int64{w.silver.at, w.quarantine.at, w.windows.at}
		w.mu.Unlock()
		if err != nil {
			w.Log.Warn("predictions are tried again", "error", err)
			pause = min(2*pause, 10*time.Second)
		} else {
			pause = w.Poll
		}
		if !progress || err != nil {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-w.Wake:
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}
	return nil
}

// step takes what is new once along the whole way.
func (w *Worker) step(ctx context.Context) (progress bool, err error) {
	if err := w.refreshRegistry(ctx); err != nil {
		return false, err
	}
	files, to, err := w.silver.added(ctx, w.LakeDir, -1)
	if err != nil {
		return false, err
	}
	if to > w.silver.at {
		progress = true
		if err := w.readSilver(ctx, files, w.take); err != nil {
			return false, err
		}
		// Before the version counts as read: a crash in between has them read again.
		if err := w.tellAlarms(ctx); err != nil {
			return false, err
		}
		if err := w.writeFeatures(ctx, to); err != nil {
			return false, err
		}
		w.silver.at = to
	}
	refused, err := w.readRefused(ctx, -1)
	if err != nil {
		return false, err
	}
	if progress || refused {
		if err := w.publishHealth(ctx); err != nil {
			return false, err
		}
	}
	scored, err := w.score(ctx)
	if err != nil {
		return false, err
	}
	minutes, err := w.processFeatures(ctx)
	return progress || refused || scored || minutes, err
}

func (w *Worker) refreshRegistry(ctx context.Context) error {
	version, err := w.Registry.Version(ctx)
	if err != nil || version == w.registry.Version {
		return err
	}
	snap, err := w.Registry.Snapshot(ctx)
	if err == nil {
		w.registry = snap
	}
	return err
}

// tellAlarms hands on what edges said.
func (w *Worker) tellAlarms(ctx context.Context) error {
	begun, err := w.Alerts.Local(ctx, w.alarms)
	if err != nil {
		return err
	}
	w.alarms = w.alarms[:0]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.episodes += int64(begun)
	return nil
}

// take notes a row of silver.
func (w *Worker) take(r *row) {
	asset, sensor := r.path.Asset(), r.path.Sensor()
	w.monitor.Silver([]health.Row{{Path: r.path, EventTime: r.event, AliveAt: r.alive, Value: r.value, Stream: r.stream, CompleteTo: r.complete}})
	if sensor == stateSensor && r.value.Kind == signal.Text && r.good {
		w.takeState(asset, stateAt{r.event, r.value.Text})
		return
	}
	if a, ok := signal.ParseAlarm(sensor, r.value); ok && r.alive == r.event {
		w.alarms = append(w.alarms, alert.Local{Asset: asset, Alarm: a})
		return
	}
	name, place, ok := features.Channel(sensor)
	if !ok || r.alive != r.event {
		return
	}
	value := r.value.Number
	if r.value.Kind != signal.Number || !r.good {
		value = nan()
	}
	k := channelKey{asset, name}
	c := w.channels[k]
	if c == nil {
		c = &channel{touched: map[signal.Micros]bool{}, emitted: map[signal.Micros]emitted{}}
		w.channels[k] = c
	}
	if c.history.Put(r.event, place, value) {
		c.touch(r.event, r.event+features.RollingSpan)
	}
}

// touch marks windows whose rolling mean may have changed.
func (c *channel) touch(from, to signal.Micros) {
	c.history.Ends(from, to, func(end signal.Micros) { c.touched[end] = true })
}

// takeState notes what a machine's control says, and marks the windows that it
// is of.
func (w *Worker) takeState(asset signal.Asset, s stateAt) {
	list := w.states[asset]
	i := sort.Search(len(list), func(i int) bool { return list[i].at >= s.at })
	if i < len(list) && list[i].at == s.at {
		list[i] = s
	} else {
		list = append(list, stateAt{})
		copy(list[i+1:], list[i:])
		list[i] = s
	}
	w.states[asset] = list
	until := signal.MaxTime
	if i+1 < len(list) {
		until = list[i+1].at + settled
	}
	for k, c := range w.channels {
		if k.asset == asset {
			c.touch(s.at, until+features.RollingSpan)
		}
	}
}

// running tells whether a machine was running at a time, and has been for long
// enough. One whose control says nothing always is.
func (w *Worker) running(asset signal.Asset, at signal.Micros) bool {
	list := w.states[asset]
	i := sort.Search(len(list), func(i int) bool { return list[i].at > at }) - 1
	if i < 0 {
		return !w.registry.Known(asset.Sensor(stateSensor))
	}
	// What it said first has held before.
	return list[i].state == stateRunning && (i == 0 || at-list[i].at >= settled)
}

func (w *Worker) stateOf(asset signal.Asset, at signal.Micros) string {
	list := w.states[asset]
	if i := sort.Search(len(list), func(i int) bool { return list[i].at > at }) - 1; i >= 0 {
		return list[i].state
	}
	return ""
}

// stamp is when what is written now becomes available: later than all that was
// written before, though a replay's clock may stand still or start behind it.
func (w *Worker) stamp() signal.Micros {
	w.lastStamp = max(w.lastStamp+1, signal.MicrosOf(w.Clock.Now()))
	return w.lastStamp
}

// Drained tells whether all of silver has become features, scores and alerts.
// Rows that wait for a model wait for more of silver, not for this station.
func (w *Worker) Drained(ctx context.Context) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.resting {
		return false, nil
	}
	for i := range w.watched {
		f := &w.watched[i]
		f.at = w.rest[i]
		if behind, err := f.behind(ctx, w.LakeDir); behind || err != nil {
			return false, err
		}
	}
	return true, nil
}

// Err is why the station does not get on, or nil.
func (w *Worker) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Counters are the station's figures, of this process.
func (w *Worker) Counters() []signal.Counter {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counts
	var out []signal.Counter
	add := func(name string, v int64) {
		out = append(out, signal.Counter{Station: "predict", Name: name, Value: v})
	}
	add("feature_rows", c.features)
	add("process_rows", c.process)
	add("predictions", c.predictions)
	add("scored", c.scored)
	add("models", c.models)
	add("episodes", c.episodes)
	add("sensor_findings_now", c.findings)
	add("windows_without_model_now", c.waiting)
	return out
}

// Risks are what is known of every channel, in no order.
func (w *Worker) Risks() []Risk {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]Risk, 0, len(w.risks))
	for _, r := range w.risks {
		c := *r
		c.Trend = append([]Score(nil), r.Trend...)
		out = append(out, c)
	}
	return out
}

// Findings are the faults of sensors, open and ended.
func (w *Worker) Findings() []health.Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]health.Finding(nil), w.findings...)
}
