package vibration

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// goldenCase is what testdata/golden.py has computed with scipy.
type goldenCase struct {
	Name     string             `json:"name"`
	Unit     string             `json:"unit"`
	RPM      float64            `json:"rpm"`
	Orders   map[string]float64 `json:"orders"`
	Envelope [2]float64         `json:"envelope"`
	Bands    []Band             `json:"bands"`
	Scale    float64            `json:"scale"`
	Rate     float64            `json:"rate"`
	Window   int                `json:"window"`
	Overlap  float64            `json:"overlap"`
	Average  int                `json:"average"`
	Harmonic int                `json:"harmonics"`
	Seed     uint64             `json:"seed"`
	Samples  int                `json:"samples"`
	Profile  []ProfilePoint     `json:"profile"`
	Features map[string]float64 `json:"features"`
	Lines    map[string]float64 `json:"lines"`
}

func goldenCases(t testing.TB) (out []goldenCase) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// counts are the case's samples: of its file, or the congruential noise that both
// sides make.
func (g *goldenCase) counts(t testing.TB) []byte {
	t.Helper()
	if g.Samples == 0 {
		b, err := os.ReadFile(filepath.Join("testdata", g.Name+".i16"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := make([]byte, 0, 2*g.Samples)
	s := g.Seed
	for range g.Samples {
		s = s*6364136223846793005 + 1442695040888963407
		b = binary.LittleEndian.AppendUint16(b, uint16(s>>48))
	}
	return b
}

func (g *goldenCase) rule() Rule {
	o := g.Orders
	return Rule{
		Window: g.Window, Overlap: g.Overlap, Average: g.Average, RPM: g.RPM, SpeedProfile: g.Profile,
		Bearing: Orders{BPFO: o["bpfo"], BPFI: o["bpfi"], BSF2: o["bsf"], FTF: o["ftf"]}, EnvelopeLow: g.Envelope[0], EnvelopeHigh: g.Envelope[1],
		Bands: g.Bands, BandsOnly: true, Statistics: []string{PeakToPeak, Skewness}, Velocity: &Velocity{Group: "2", Mounting: "rigid"},
		Harmonics: g.Harmonic, EachHarmonic: true,
	}
}

// What scipy makes of the same counts: moments to 1e-9, spectra, bands, velocity
// and envelope to 1e-6, in blocks of any size.
func TestGolden(t *testing.T) {
	for _, g := range goldenCases(t) {
		for _, size := range []int{1 << 20, g.Window, 1000, 77} {
			t.Run(g.Name+"/"+strconv.Itoa(size), func(t *testing.T) {
				st := open(t, g.rule())
				bytes := g.counts(t)
				var out []signal.Reading
				for first := 0; 2*first < len(bytes); first += size {
					part := bytes[2*first : min(2*(first+size), len(bytes))]
					r := &signal.Reading{Sensor: "de", Unit: g.Unit, Quality: signal.QualityGood, EventTime: signal.Micros(math.Round(float64(first) / g.Rate * 1e6))}
					w := &record.Waveform{First: uint64(first), Rate: g.Rate, Format: record.FormatI16, Scale: g.Scale, Samples: part}
					var err error
					if out, _, err = st.Window(asset, r, w, out); err != nil {
						t.Fatal(err)
					}
				}
				got := map[string]signal.Reading{}
				for _, d := range out {
					if _, twice := got[d.Sensor]; twice {
						t.Errorf("%s is there twice", d.Sensor)
					}
					got[d.Sensor] = d
				}
				if len(got) != len(g.Features)+1 { // and the zone
					t.Errorf("%d features, scipy has %d", len(got)-1, len(g.Features))
				}
				for name, want := range g.Features {
					tolerance := 1e-6
					switch name {
					case ".rms", ".peak", ".crest", ".kurtosis", ".skewness", ".p2p":
						tolerance = 1e-9
					}
					near(t, name, got["de"+name].Value.Number, want, tolerance)
				}
				if zone, want := got["de.zone"].Value.Text, "ABCD"; len(zone) != 1 || !strings.Contains(want, zone) {
					t.Errorf("zone %q", zone)
				}
			})
		}
		if g.Average > 1 {
			continue
		}
		x := (&record.Waveform{Format: record.FormatI16, Scale: g.Scale, Samples: g.counts(t)}).Floats(nil)
		a := &open(t, g.rule()).analyser
		a.centred = sized(a.centred, len(x))
		centre(x, a.centred)
		a.transform(a.centred)
		power := a.spectrum(len(x), len(x))
		for k, want := range g.Lines {
			i, err := strconv.Atoi(k)
			if err != nil {
				t.Fatal(err)
			}
			near(t, g.Name+": line "+k, power[i], want, 1e-6)
		}
	}
}
