package alert

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/signal"
)

func prediction(at int, score float64, status model.Status) model.Prediction {
	value := func(share float64) float64 { return math.Log(share) / 4 }
	return model.Prediction{
		Asset: "s/l/a", Sensor: "de", Event: signal.Micros(at), Status: status, Score: score, Model: "m",
		Contributions: []model.Contribution{{Feature: "env_bpfi", Value: value(0.4)}, {Feature: "env_bpfo", Value: value(0.1)}, {Feature: "env_bsf", Value: value(0.05)}},
	}
}

func well(signal.Asset, string) bool { return false }

func store(t rapid.TB, path string) *Store {
	t.Helper()
	s, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Episodes against a plain reading of the rule, over restarts, repeats and any
// cut into batches.
func TestEpisodesAgainstBruteForce(t *testing.T) {
	top := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(top, signal.Micros(run).Time().Format("150405.000000")+".db")
		s := store(t, path)
		defer func() { _ = s.Close() }()
		n := rapid.IntRange(1, 60).Draw(t, "n")
		var all []model.Prediction
		for i := range n {
			status := model.Scored
			if rapid.IntRange(0, 9).Draw(t, "status") == 0 {
				status = model.NotRunning
			}
			score := 0.5
			if rapid.IntRange(0, 3).Draw(t, "above") > 0 {
				score = 2
			}
			all = append(all, prediction(i+1, score, status))
		}
		// The rule, read plainly.
		var want [][2]signal.Micros
		var last []model.Prediction
		open, below := false, 0
		for _, p := range all {
			if p.Status != model.Scored {
				continue
			}
			if open {
				if below++; p.Score > 1 {
					below = 0
				}
				if below == Off {
					want[len(want)-1][1] = p.Event
					open, last = false, nil
				}
				continue
			}
			last = append(last, p)
			last = last[max(0, len(last)-Of):]
			above := 0
			for _, l := range last {
				if l.Score > 1 {
					above++
				}
			}
			if above >= On {
				want = append(want, [2]signal.Micros{p.Event, 0})
				open, below = true, 0
			}
		}
		for i := 0; i < n; {
			k := min(i+rapid.IntRange(1, 8).Draw(t, "batch"), n)
			from := max(0, i-rapid.IntRange(0, 3).Draw(t, "again"))
			if _, err := s.Observe(t.Context(), all[from:k], well); err != nil {
				t.Fatal(err)
			}
			i = k
			if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = store(t, path)
			}
		}
		kept, err := s.Episodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(kept)
		var got [][2]signal.Micros
		for _, k := range kept {
			got = append(got, [2]signal.Micros{k.Raised, k.Cleared})
			if k.Defect != InnerRace || k.Confidence < 0.6 {
				t.Fatalf("%s, %v", k.Defect, k.Confidence)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// A channel that crosses its limit a thousand times is one episode.
func TestChatter(t *testing.T) {
	s := store(t, filepath.Join(t.TempDir(), "a.db"))
	defer s.Close()
	var all []model.Prediction
	for i := range 10 {
		all = append(all, prediction(i+1, 2, model.Scored))
	}
	for i := range 2000 {
		all = append(all, prediction(11+i, []float64{0.5, 2}[i%2], model.Scored))
	}
	begun, err := s.Observe(t.Context(), all, well)
	if err != nil || begun != 1 {
		t.Fatalf("%d episodes, %v", begun, err)
	}
	waiting, err := s.Waiting(t.Context())
	if err != nil || len(waiting) != 1 {
		t.Fatalf("%d requests, %v", len(waiting), err)
	}
	if err := s.Delivered(t.Context(), waiting[0].ID, "WO-1"); err != nil {
		t.Fatal(err)
	}
	if waiting, err = s.Waiting(t.Context()); err != nil || len(waiting) != 0 {
		t.Fatalf("%d requests, %v", len(waiting), err)
	}
}

// A sensor with a fault of its own alarms nobody about the machine.
func TestFaultySensor(t *testing.T) {
	s := store(t, filepath.Join(t.TempDir(), "a.db"))
	defer s.Close()
	var all []model.Prediction
	for i := range 20 {
		all = append(all, prediction(i+1, 9, model.Scored))
	}
	if begun, err := s.Observe(t.Context(), all, func(signal.Asset, string) bool { return true }); err != nil || begun != 0 {
		t.Fatalf("%d episodes, %v", begun, err)
	}
}

func TestDefects(t *testing.T) {
	for _, c := range []struct {
		shares [3]float64
		want   string
	}{
		{[3]float64{0.5, 0.05, 0.04}, OuterRace},
		{[3]float64{0.05, 0.3, 0.1}, InnerRace},
		{[3]float64{0.1, 0.1, 0.6}, Ball},
		{[3]float64{0.3, 0.28, 0.1}, Inconclusive},
		{[3]float64{0.1, 0.02, 0.02}, Inconclusive},
	} {
		var e Episode
		e.judge([]point{{Above: true, Shares: c.shares}}, 1)
		if e.Defect != c.want || !(e.Confidence > 0 && e.Confidence <= 1) {
			t.Errorf("%v: %s (%v), want %s", c.shares, e.Defect, e.Confidence, c.want)
		}
	}
}
