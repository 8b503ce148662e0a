package rules

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/edge/protofield"
	"github.com/headrace/headrace/signal"
)

// At is an alarm and the asset that it is of.
type At struct {
	Asset signal.Asset `json:"asset"`
	signal.Alarm
}

// Rules is a set at work: what it remembers of each sensor that a rule fits.
type Rules struct {
	set     *Set
	edge    string // part of an alarm's id
	sensors map[sensor][]*watch
}

type sensor struct {
	asset signal.Asset
	name  string
}

// watch is one rule on one sensor.
type watch struct {
	rule    *Rule         // nil: the configuration has it no more, but its alarm is not cleared
	since   signal.Micros // beyond the level without a break; 0 if it is not
	seen    signal.Micros // newest sample
	cleared signal.Micros // when the last alarm was
	last    float64       // its value, for the rate
	hasLast bool
	alarm   *signal.Alarm // while it lasts
}

// Open goes on where a state stands; nil begins. An alarm whose rule is gone is
// cleared by the next sample of its sensor.
func (s *Set) Open(edge string, state []byte) (*Rules, error) {
	r := &Rules{set: s, edge: edge, sensors: map[sensor][]*watch{}}
	err := protofield.Each(state, func(num protowire.Number, _ uint64, b []byte, _ int) error {
		if num != 1 {
			return nil
		}
		return r.restore(b)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the state of the local rules: %w", err)
	}
	return r, nil
}

func (r *Rules) watches(key sensor) []*watch {
	list, known := r.sensors[key]
	if known {
		return list
	}
	for i := range r.set.rules {
		if rule := &r.set.rules[i]; rule.fits(key.asset, key.name) {
			list = append(list, &watch{rule: rule})
		}
	}
	key.name = strings.Clone(key.name)
	r.sensors[key] = list
	return list
}

// Apply judges a sample and appends the alarms that it raises or clears. A sample
// that is late, not good, or no number changes nothing.
func (r *Rules) Apply(dst []At, asset signal.Asset, v *signal.Reading) []At {
	if len(r.set.rules) == 0 && len(r.sensors) == 0 || v.Held() || !v.Quality.Good() {
		return dst
	}
	x := v.Value.Number
	if v.Value.Kind != signal.Number && v.Value.Kind != signal.Bool || math.IsNaN(x) || math.IsInf(x, 0) {
		return dst
	}
	key := sensor{asset, v.Sensor}
	list := r.watches(key)
	gone := false
	for _, w := range list {
		if v.EventTime <= w.seen {
			continue
		}
		if w.rule == nil {
			gone = true
			if w.alarm != nil {
				dst = append(dst, w.clear(asset, v.EventTime, x))
			}
			continue
		}
		y, ok := w.next(v.EventTime, x)
		if ok {
			dst = r.judge(dst, w, asset, v, y)
		}
	}
	if gone {
		key.name = strings.Clone(key.name)
		r.sensors[key] = slices.DeleteFunc(list, func(w *watch) bool { return w.rule == nil && w.alarm == nil })
	}
	return dst
}

// next takes the next sample and returns what the rule compares.
func (w *watch) next(at signal.Micros, x float64) (y float64, ok bool) {
	y, ok = x, true
	if w.rule.Of == Rate {
		y = (x - w.last) / (float64(at-w.seen) / 1e6)
		ok = w.hasLast && !math.IsInf(y, 0) && !math.IsNaN(y)
	}
	w.last, w.hasLast, w.seen = x, true, at
	return y, ok
}

func (r *Rules) judge(dst []At, w *watch, asset signal.Asset, v *signal.Reading, y float64) []At {
	level, clear := w.rule.levels()
	at := v.EventTime
	switch {
	case w.alarm != nil && !w.rule.beyond(y, clear):
		return append(dst, w.clear(asset, at, y))
	case w.alarm != nil:
	case !w.rule.beyond(y, level):
		w.since = 0
	default:
		if w.since == 0 {
			w.since = at
		}
		if at-w.since < signal.Micros(w.rule.ForSeconds*1e6) {
			return dst
		}
		w.alarm = &signal.Alarm{
			Rule: w.rule.Name, Sensor: strings.Clone(v.Sensor), FailureMode: w.rule.FailureMode, Severity: w.rule.Severity, State: signal.AlarmRaised,
			Started: w.since, Raised: at, Of: w.rule.Of, Value: y, Level: level, Unit: v.Unit,
		}
		channel, _, derived := strings.Cut(v.Sensor, ".")
		w.alarm.Channel = channel
		if w.alarm.FailureMode == "" {
			w.alarm.FailureMode = ParameterDeviation
			if derived {
				w.alarm.FailureMode = Vibration
			}
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%s|%s|%d", r.edge, asset, v.Sensor, w.rule.Name, w.since))
		w.alarm.ID = hex.EncodeToString(sum[:8])
		w.since = 0
		return append(dst, At{asset, *w.alarm})
	}
	return dst
}

func (w *watch) clear(asset signal.Asset, at signal.Micros, y float64) At {
	a := At{asset, *w.alarm}
	a.State, a.Cleared, a.Value = signal.AlarmCleared, at, y
	w.alarm, w.since, w.cleared = nil, 0, at
	return a
}

// Active are the alarms that last, by asset, sensor and rule.
func (r *Rules) Active() (out []At) {
	for key, list := range r.sensors {
		for _, w := range list {
			if w.alarm != nil {
				out = append(out, At{key.asset, *w.alarm})
			}
		}
	}
	slices.SortFunc(out, func(a, b At) int {
		return cmp.Or(cmp.Compare(a.Asset, b.Asset), cmp.Compare(a.Sensor, b.Sensor), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}

// again is how long after an alarm samples of it may still come again, from a
// source that was not told of the commit that has them.
const again = signal.Micros(3600 * 1_000_000)

// State is what must outlive a restart, for [Set.Open].
func (r *Rules) State() (out []byte) {
	if len(r.sensors) == 0 {
		return nil
	}
	keys := slices.SortedFunc(maps.Keys(r.sensors), func(a, b sensor) int {
		return cmp.Or(cmp.Compare(a.asset, b.asset), cmp.Compare(a.name, b.name))
	})
	text := func(b []byte, num protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
	}
	number := func(b []byte, num protowire.Number, v uint64) []byte {
		return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), v)
	}
	var b []byte
	for _, key := range keys {
		for _, w := range r.sensors[key] {
			rate := w.rule != nil && w.rule.Of == Rate && w.hasLast
			ended := w.rule != nil && w.cleared != 0 && w.seen-w.cleared < again
			if w.since == 0 && w.alarm == nil && !rate && !ended {
				continue
			}
			name := ""
			if w.rule != nil {
				name = w.rule.Name
			}
			b = text(b[:0], 1, name)
			b = text(b, 2, string(key.asset.Sensor(key.name)))
			b = number(b, 3, uint64(w.since))
			b = number(b, 4, uint64(w.seen))
			if rate {
				b = number(b, 5, math.Float64bits(w.last))
			}
			if ended {
				b = number(b, 7, uint64(w.cleared))
			}
			if w.alarm != nil {
				alarm, err := json.Marshal(w.alarm)
				if err != nil {
					continue // its numbers are finite, and so this cannot be
				}
				b = text(b, 6, string(alarm))
			}
			out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), b)
		}
	}
	return out
}

func (r *Rules) restore(p []byte) error {
	var name string
	var at signal.Path
	w := watch{}
	err := protofield.Each(p, func(num protowire.Number, u uint64, b []byte, _ int) (err error) {
		switch num {
		case 1:
			name = string(b)
		case 2:
			at, err = signal.ParsePath(string(b))
		case 3:
			w.since = signal.Micros(u)
		case 4:
			w.seen = signal.Micros(u)
		case 5:
			w.last, w.hasLast = math.Float64frombits(u), true
		case 6:
			w.alarm = &signal.Alarm{}
			err = json.Unmarshal(b, w.alarm)
		case 7:
			w.cleared = signal.Micros(u)
		}
		return err
	})
	if err != nil || at == "" {
		return err
	}
	key := sensor{at.Asset(), at.Sensor()}
	list := r.watches(key)
	for _, known := range list {
		if known.rule != nil && known.rule.Name == name {
			w.rule = known.rule
			*known = w
			return nil
		}
	}
	if w.alarm != nil {
		r.sensors[key] = append(list, &w)
	}
	return nil
}
