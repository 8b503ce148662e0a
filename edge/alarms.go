package edge

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/protofield"
	"github.com/headrace/headrace/edge/rules"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
)

// fieldRules is where the state of the local rules stands behind the filter's,
// which passes over fields that are not its own.
const fieldRules protowire.Number = 14

func (a *Agent) openRules(state []byte) (*rules.Rules, error) {
	var frozen []byte
	err := protofield.Each(state, func(num protowire.Number, _ uint64, b []byte, _ int) error {
		if num == fieldRules {
			frozen = b
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r, err := a.opt.Rules.Open(a.opt.Group+"/"+a.opt.Node, frozen)
	if err != nil {
		return nil, err
	}
	for _, at := range r.Active() {
		a.board.show(at)
	}
	return r, nil
}

func freezeRules(r *rules.Rules, state []byte) []byte {
	if b := r.State(); len(b) > 0 {
		return protowire.AppendBytes(protowire.AppendTag(state, fieldRules, protowire.BytesType), b)
	}
	return state
}

// judge has the local rules judge a reading. An alarm leaves as an event, and is
// shown at once.
func (p *packer) judge(asset signal.Asset, r *signal.Reading) error {
	p.alarms = p.rules.Apply(p.alarms[:0], asset, r)
	for i := range p.alarms {
		at := &p.alarms[i]
		reading, err := at.Reading()
		if err != nil {
			return err
		}
		p.tell(asset, reading)
		p.a.board.show(*at)
		level := p.a.log.Warn
		if at.State == signal.AlarmCleared {
			level = p.a.log.Info
		}
		level("alarm "+at.State, "asset", at.Asset, "sensor", at.Sensor, "rule", at.Rule, "severity", at.Severity, "value", at.Value, "level", at.Level, "unit", at.Unit)
	}
	return nil
}

// tell adds an event of the edge's own to the pack.
func (p *packer) tell(asset signal.Asset, r signal.Reading) {
	k := p.message(asset, signal.Event)
	p.seen[k].SeenTo = max(p.seen[k].SeenTo, r.AliveAt)
	p.derived++
	p.put(k, []signal.Reading{r})
}

// Evicted is what the event says that tells of readings given up; docs/formats/outbox.md.
type Evicted struct {
	Class    signal.Class  `json:"class"`
	Readings uint64        `json:"readings,omitempty"`
	Samples  uint64        `json:"samples,omitempty"`
	From     signal.Micros `json:"from"` // of the first and of the last message
	To       signal.Micros `json:"to"`
}

// EvictedSensor is the sensor of an [Evicted] event, before the class.
const EvictedSensor = "evicted."

// tellHoles adds an event for each stream of which something was given up, once
// there is room for it.
func (p *packer) tellHoles() (told []outbox.Told, err error) {
	told = p.a.outbox.Holes()
	for _, t := range told {
		asset, class := t.Stream.Split()
		text, err := json.Marshal(Evicted{class, t.Readings, t.Samples, t.From, t.To})
		if err != nil {
			return nil, err
		}
		now := signal.MicrosOf(p.a.opt.Clock.Now())
		p.tell(asset, signal.Reading{
			Sensor: EvictedSensor + string(class), EventTime: now, AliveAt: now, Value: signal.TextValue(string(text)), Quality: signal.QualityGood,
		})
		p.a.log.Warn("the outbox was full; readings were given up", "stream", t.Stream, "readings", t.Readings, "samples", t.Samples, "from", t.From.Time(), "to", t.To.Time())
	}
	return told, nil
}

// AlarmTopic begins the topics on which an edge shows its alarms.
func AlarmTopic(group, node string) string { return "headrace/alarm/" + group + "/" + node }

// maxPosts bounds the changes that wait to be shown; beyond it all is shown anew.
const maxPosts = 1000

// board shows the alarms that last.
type board struct {
	mu      sync.Mutex
	active  map[string]rules.At
	posts   []rules.At // not shown yet
	all     bool       // everything is to be shown
	changed chan struct{}
}

func newBoard() *board { return &board{active: map[string]rules.At{}, changed: make(chan struct{}, 1)} }

func (b *board) show(at rules.At) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := string(at.Asset) + "/" + at.SensorName()
	if at.State == signal.AlarmCleared {
		delete(b.active, key)
	} else {
		b.active[key] = at
	}
	if len(b.posts) < maxPosts {
		b.posts = append(b.posts, at)
	} else {
		b.all = true
	}
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// take returns what is to be shown; all is everything that lasts and the changes.
func (b *board) take(all bool) []rules.At {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.posts
	if all || b.all {
		for _, at := range b.active {
			out = append(out, at)
		}
	}
	b.posts, b.all = nil, false
	return out
}

// back returns what could not be shown.
func (b *board) back() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = true
}

func (b *board) list() []rules.At {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]rules.At, 0, len(b.active))
	for _, at := range b.active {
		out = append(out, at)
	}
	return out
}

// publish shows alarms on a broker, retained: the newest state of each.
func (b *board) publish(ctx context.Context, conn *mqttc.Conn, group, node string, all bool) error {
	for _, at := range b.take(all) {
		_, line, machine := at.Asset.Split()
		payload, err := json.Marshal(at)
		if err == nil {
			_, err = conn.PublishAsync(ctx, AlarmTopic(group, node)+"/"+line+"/"+machine+"/"+at.Sensor+"/"+at.Rule, 1, true, payload)
		}
		if err != nil {
			b.back()
			return err
		}
	}
	return nil
}

// showAlarms keeps the alarms shown on the plant's broker until ctx ends. Before
// the first there is no connection.
func (a *Agent) showAlarms(ctx context.Context) {
	select {
	case <-a.board.changed:
	case <-ctx.Done():
		return
	}
	wait := a.opt.MinReconnect
	for ctx.Err() == nil {
		began := time.Now()
		err := a.alarmSession(ctx)
		if ctx.Err() != nil {
			return
		}
		a.log.Warn("alarms are not shown on the plant's broker; it is tried again", "cause", err)
		if time.Since(began) >= settled {
			wait = a.opt.MinReconnect
		}
		if !pause(ctx, wait/2+rand.N(wait/2+1)) {
			return
		}
		wait = min(2*wait, a.opt.MaxReconnect)
	}
}

func (a *Agent) alarmSession(ctx context.Context) error {
	cfg := *a.opt.AlarmMQTT
	cfg.ClientID, cfg.CleanSession = clientID(a.opt.Group, a.opt.Node+"-alarms"), true
	cfg.OnMessage = func(m mqttc.Message) { m.Ack() }
	conn, err := mqttc.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		conn.Abort()
		<-conn.Done()
	}()
	for all := true; ; all = false {
		if err := a.board.publish(ctx, conn, a.opt.Group, a.opt.Node, all); err != nil {
			return err
		}
		select {
		case <-a.board.changed:
		case <-conn.Done():
			return conn.Err()
		case <-ctx.Done():
			goodbyeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
			defer cancel()
			return conn.Close(goodbyeCtx)
		}
	}
}

// Alarms are those that last, in no order.
func (a *Agent) Alarms() []rules.At { return a.board.list() }
