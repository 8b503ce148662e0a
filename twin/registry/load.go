package registry

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/strictyaml"
	"github.com/headrace/headrace/signal"
)

// plantFile is what a plant writes of its assets.
type plantFile struct {
	Templates map[string]template `yaml:"templates"`
	Assets    []assetSpec         `yaml:"assets"`
}

// replayFile says what the recordings of a known data set are of.
type replayFile struct {
	Templates map[string]template `yaml:"templates"`
	Sites     map[string]string   `yaml:"sites"` // site: template of all of its assets
}

// template is what assets of one kind have in common.
type template struct {
	Class       string                `yaml:"class"`
	Description string                `yaml:"description"`
	Owner       string                `yaml:"owner"`
	Mounting    string                `yaml:"mounting"`
	RPM         float64               `yaml:"rpm"`
	Bearing     *bearingSpec          `yaml:"bearing"`
	Healthy     *healthySpec          `yaml:"healthy"`
	Vibration   []string              `yaml:"vibration"`
	Sensors     map[string]sensorSpec `yaml:"sensors"`
}

// bearingSpec is a bearing's defect orders; see [signal.Bearing].
type bearingSpec struct {
	Name string  `yaml:"name"`
	BPFO float64 `yaml:"bpfo"`
	BPFI float64 `yaml:"bpfi"`
	BSF2 float64 `yaml:"bsf2"`
	FTF  float64 `yaml:"ftf"`
}

// healthySpec is the period that a model learns from; see [signal.Healthy].
type healthySpec struct {
	Asset string `yaml:"asset"`
	From  string `yaml:"from"`
	To    string `yaml:"to"`
}

// assetSpec is an asset over one validity; what it leaves out its template says.
type assetSpec struct {
	Asset       string                `yaml:"asset"`
	ID          string                `yaml:"id"`
	Template    string                `yaml:"template"`
	Class       string                `yaml:"class"`
	Description string                `yaml:"description"`
	Owner       string                `yaml:"owner"`
	Mounting    string                `yaml:"mounting"`
	RPM         float64               `yaml:"rpm"`
	Bearing     *bearingSpec          `yaml:"bearing"`
	Healthy     *healthySpec          `yaml:"healthy"`
	Vibration   []string              `yaml:"vibration"` // channels whose features are registered too
	ValidFrom   string                `yaml:"valid_from"`
	ValidTo     string                `yaml:"valid_to"`
	Sensors     map[string]sensorSpec `yaml:"sensors"`
}

// sensorSpec is a sensor; its owner is the asset's if it names none.
type sensorSpec struct {
	ID            string   `yaml:"id"`
	Unit          string   `yaml:"unit"`
	Kind          string   `yaml:"kind"`
	Min           *float64 `yaml:"min"`
	Max           *float64 `yaml:"max"`
	Interpolation string   `yaml:"interpolation"`
	MaxHold       string   `yaml:"max_hold"`
	StuckAfter    string   `yaml:"stuck_after"`
	Owner         string   `yaml:"owner"`
}

// over returns s with what it leaves out taken from base.
func (s sensorSpec) over(base sensorSpec) sensorSpec {
	return sensorSpec{
		ID:            cmp.Or(s.ID, base.ID),
		Unit:          cmp.Or(s.Unit, base.Unit),
		Kind:          cmp.Or(s.Kind, base.Kind),
		Min:           cmp.Or(s.Min, base.Min),
		Max:           cmp.Or(s.Max, base.Max),
		Interpolation: cmp.Or(s.Interpolation, base.Interpolation),
		MaxHold:       cmp.Or(s.MaxHold, base.MaxHold),
		StuckAfter:    cmp.Or(s.StuckAfter, base.StuckAfter),
		Owner:         cmp.Or(s.Owner, base.Owner),
	}
}

// LoadFile loads a plant's file; see [Registry.Load].
func (r *Registry) LoadFile(ctx context.Context, file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("loading assets: %w", err)
	}
	return r.Load(ctx, file, b)
}

// Load records what a YAML document says, in one version. What it says of an
// asset or a sensor is the whole of it, over all time; what it does not name
// stays. Loading the same document again changes nothing. file stands in errors.
func (r *Registry) Load(ctx context.Context, file string, doc []byte) (int64, error) {
	ch, err := parse(file, doc)
	if err != nil {
		return 0, err
	}
	version, err := r.apply(ctx, replace, ch)
	if err != nil {
		return 0, fmt.Errorf("loading %s: %w", file, err)
	}
	return version, nil
}

// parse reads a plant's file.
func parse(file string, doc []byte) (Change, error) {
	if len(doc) > strictyaml.MaxBytes {
		return Change{}, fmt.Errorf("reading %s: it is longer than %d MiB", file, strictyaml.MaxBytes>>20)
	}
	var f plantFile
	if err := strictyaml.Decode(file, doc, &f); err != nil {
		return Change{}, err
	}
	ch := Change{Reason: "file " + path.Base(file)}
	for _, a := range f.Assets {
		if err := ch.add(f.Templates, a); err != nil {
			return Change{}, fmt.Errorf("reading %s: asset %s: %w", file, a.Asset, err)
		}
	}
	return ch, nil
}

// add puts the rows of one asset into the change.
func (ch *Change) add(templates map[string]template, a assetSpec) error {
	asset, err := signal.ParseAsset(a.Asset)
	if err != nil {
		return err
	}
	var base template
	if a.Template != "" {
		var ok bool
		if base, ok = templates[a.Template]; !ok {
			msg := fmt.Sprintf("template %q is not in the file", a.Template)
			if near := strictyaml.Nearest(a.Template, slices.Sorted(maps.Keys(templates))); near != "" {
				msg += fmt.Sprintf("; did you mean %q?", near)
			}
			return fmt.Errorf("%s", msg)
		}
	}
	from, err := parseTime("valid_from", a.ValidFrom)
	if err != nil {
		return err
	}
	to, err := parseTime("valid_to", a.ValidTo)
	if err != nil {
		return err
	}
	always(&from, &to)
	meta := assetMeta{signal.AssetMeta{
		Asset: asset, AssetID: a.ID, Class: cmp.Or(a.Class, base.Class), Description: cmp.Or(a.Description, base.Description),
		Owner: cmp.Or(a.Owner, base.Owner), Claimed: true, ValidFrom: from, ValidTo: to,
	}}
	if err := meta.machine(a, base); err != nil {
		return err
	}
	ch.Assets = append(ch.Assets, meta.AssetMeta)

	specs := map[string]sensorSpec{}
	for _, channel := range append(slices.Clone(base.Vibration), a.Vibration...) {
		maps.Copy(specs, vibrationSpecs(channel))
	}
	for name, s := range base.Sensors {
		specs[name] = s.over(specs[name])
	}
	for name, s := range a.Sensors {
		specs[name] = s.over(specs[name])
	}
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		m, err := specs[name].meta(asset, name, meta.Owner)
		if err != nil {
			return fmt.Errorf("sensor %s: %w", name, err)
		}
		m.ValidFrom, m.ValidTo = from, to
		ch.Sensors = append(ch.Sensors, m)
	}
	return nil
}

func (s sensorSpec) meta(asset signal.Asset, name, owner string) (signal.SensorMeta, error) {
	if err := signal.CheckName(name); err != nil {
		return signal.SensorMeta{}, err
	}
	m := signal.SensorMeta{
		Path: asset.Sensor(name), SensorID: s.ID, Unit: s.Unit, Kind: s.Kind, MinPossible: math.Inf(-1), MaxPossible: math.Inf(1),
		Interpolation: cmp.Or(s.Interpolation, defaultInterpolation), MaxHoldMicros: defaultMaxHold.Microseconds(),
		Owner: cmp.Or(s.Owner, owner), Claimed: true, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime,
	}
	if s.Min != nil {
		m.MinPossible = *s.Min
	}
	if s.Max != nil {
		m.MaxPossible = *s.Max
	}
	if s.MaxHold != "" {
		hold, err := time.ParseDuration(s.MaxHold)
		if err != nil {
			return m, fmt.Errorf("max_hold %q is not a duration such as 300s", s.MaxHold)
		}
		m.MaxHoldMicros = hold.Microseconds()
	}
	if s.StuckAfter != "" {
		after, err := time.ParseDuration(s.StuckAfter)
		if err != nil {
			return m, fmt.Errorf("stuck_after %q is not a duration such as 120s", s.StuckAfter)
		}
		m.StuckAfterMicros = after.Microseconds()
	}
	return m, checkSensor(m)
}

// parseTime reads a moment or a day in UTC; nothing is 0.
func parseTime(key, s string) (signal.Micros, error) {
	if s == "" {
		return 0, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return signal.MicrosOf(t), nil
		}
	}
	return 0, fmt.Errorf("%s %q is not a time such as 2026-01-31 or 2026-01-31T06:00:00Z", key, s)
}

//go:embed replays/*.yaml
var replays embed.FS

// Replays names the data sets that a registry ships for.
func Replays() []string {
	entries, err := replays.ReadDir("replays")
	if err != nil {
		return nil // an embedded folder is always there
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return out
}

// ApplyReplay registers assets of a data set that a registry ships for, in one
// version, as that registry says. What somebody has described stays, so that
// running it again changes nothing; an asset at a site that the data set does
// not know is left to be registered by arrival.
func (r *Registry) ApplyReplay(ctx context.Context, name string, assets []signal.Asset) (int64, error) {
	file := "replays/" + name + ".yaml"
	doc, err := replays.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("no registry ships for the replay %q; there is one for %s", name, strings.Join(Replays(), ", "))
	}
	var f replayFile
	if err := strictyaml.Decode(file, doc, &f); err != nil {
		return 0, err
	}
	ch := Change{Reason: "replay " + name}
	assets = slices.Clone(assets)
	slices.Sort(assets)
	for _, a := range slices.Compact(assets) {
		site, _, _ := a.Split()
		tmpl, ok := f.Sites[site]
		if !ok {
			continue
		}
		if err := ch.add(f.Templates, assetSpec{Asset: string(a), Template: tmpl}); err != nil {
			return 0, fmt.Errorf("registering asset %s of the replay %s: %w", a, name, err)
		}
	}
	version, err := r.apply(ctx, unclaimed, ch)
	if err != nil {
		return 0, fmt.Errorf("registering the replay %s: %w", name, err)
	}
	return version, nil
}
