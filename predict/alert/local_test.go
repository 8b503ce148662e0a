package alert

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/signal"
)

// local is an alarm of the channel that prediction speaks of.
func local(rule string, started, raised, cleared int) Local {
	a := signal.Alarm{
		ID: fmt.Sprintf("%s-%d", rule, started), Rule: rule, Sensor: "de.rms", Channel: "de", FailureMode: FailureMode, Severity: "high",
		State: signal.AlarmRaised, Started: minutes(started), Raised: minutes(raised), Of: "value", Value: 3, Level: 2, Unit: "[g]",
	}
	if cleared > 0 {
		a.State, a.Cleared = signal.AlarmCleared, minutes(cleared)
	}
	return Local{"s/l/a", a}
}

func minutes(n int) signal.Micros { return signal.Micros(n) * 60_000_000 }

func at(minute int, score float64) model.Prediction {
	p := prediction(0, score, model.Scored)
	p.Event = minutes(minute)
	return p
}

// found are predictions of a time beyond the limit: the centre raises at from+4
// and clears at to+9.
func found(from, to int) (out []model.Prediction) {
	for m := from; m <= to; m++ {
		out = append(out, at(m, 2))
	}
	for m := to + 1; m <= to+Off; m++ {
		out = append(out, at(m, 0.5))
	}
	return out
}

// What an edge raised and what the centre finds at the same time is one episode
// with one order, whoever was first and however late the other is.
func TestOneEpisode(t *testing.T) {
	type step func(*Store) (int, error)
	centre := func(p []model.Prediction) step {
		return func(s *Store) (int, error) { return s.Observe(t.Context(), p, well) }
	}
	edge := func(l ...Local) step { return func(s *Store) (int, error) { return s.Local(t.Context(), l) } }
	hot := local("hot", 1010, 1012, 1040)
	hot.Channel, hot.FailureMode, hot.Sensor = "temperature", "PDE", "temperature"
	for name, c := range map[string]struct {
		steps []step
		want  int
	}{
		"the edge first":                        {[]step{edge(local("rough", 1010, 1012, 0)), centre(found(1005, 1030)), edge(local("rough", 1010, 1012, 1040))}, 1},
		"the centre first":                      {[]step{centre(found(1005, 1030)[:10]), edge(local("rough", 1010, 1012, 0)), centre(found(1005, 1030)), edge(local("rough", 1010, 1012, 1035))}, 1},
		"hours late, after the centre's own":    {[]step{centre(found(1005, 1030)), centre(found(5000, 5001)), edge(local("rough", 1010, 1012, 0), local("rough", 1010, 1012, 1035))}, 1},
		"the end comes first":                   {[]step{edge(local("rough", 1010, 1012, 1035)), edge(local("rough", 1010, 1012, 0)), centre(found(1005, 1030))}, 1},
		"the centre finds it twice meanwhile":   {[]step{edge(local("rough", 1000, 1002, 0)), centre(found(1005, 1020)), centre(found(1100, 1120)), edge(local("rough", 1000, 1002, 1200))}, 1},
		"only the edge":                         {[]step{edge(local("rough", 1010, 1012, 0)), edge(local("rough", 1010, 1012, 1035))}, 1},
		"another time":                          {[]step{edge(local("rough", 2010, 2012, 2020)), centre(found(1005, 1030))}, 2},
		"another channel":                       {[]step{edge(hot), centre(found(1005, 1030))}, 2},
		"two rules, of which the centre is one": {[]step{edge(local("rough", 1010, 1012, 1030), local("rougher", 1011, 1013, 1030)), centre(found(1005, 1030))}, 2},
		"a rule that raises again later":        {[]step{edge(local("rough", 1010, 1012, 1030), local("rough", 1110, 1112, 0))}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s := store(t, path)
			defer func() { _ = s.Close() }()
			begun := 0
			for round := range 2 { // all of it again changes nothing
				for _, step := range c.steps {
					n, err := step(s)
					if err != nil {
						t.Fatal(err)
					}
					begun += n
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = store(t, path)
				}
				kept, err := s.Episodes(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				waiting, err := s.Waiting(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(kept) != c.want || len(waiting) != c.want || begun != c.want {
					t.Fatalf("round %d: %d episodes, %d requests, %d begun, want %d", round, len(kept), len(waiting), begun, c.want)
				}
			}
		})
	}
}

// The one episode has the times of both and the model's evidence.
func TestWhatOneEpisodeSays(t *testing.T) {
	for _, edgeFirst := range []bool{true, false} {
		s := store(t, filepath.Join(t.TempDir(), "a.db"))
		defer s.Close()
		observe := func() {
			if _, err := s.Observe(t.Context(), found(1005, 1030), well); err != nil {
				t.Fatal(err)
			}
		}
		if !edgeFirst {
			observe()
		}
		if _, err := s.Local(t.Context(), []Local{local("rough", 1001, 1003, 0)}); err != nil {
			t.Fatal(err)
		}
		if edgeFirst {
			observe()
		}
		kept, err := s.Episodes(t.Context())
		if err != nil || len(kept) != 1 {
			t.Fatalf("%+v, %v", kept, err)
		}
		e := kept[0].Episode
		if e.Started != minutes(1001) || e.Raised != minutes(1003) || e.Cleared != 0 || e.Model != "m" || e.Defect != InnerRace || len(e.Evidence) == 0 || len(e.Alarms) != 1 ||
			e.Found != (Found{minutes(1005), minutes(1009), minutes(1040)}) {
			t.Errorf("edge first %v: %+v", edgeFirst, e)
		}
		if _, err := s.Local(t.Context(), []Local{local("rough", 1001, 1003, 1100)}); err != nil {
			t.Fatal(err)
		}
		if kept, err = s.Episodes(t.Context()); err != nil || kept[0].Cleared != minutes(1100) {
			t.Errorf("edge first %v: cleared %v, %v", edgeFirst, kept[0].Cleared, err)
		}
	}
}

// However alarms and predictions are mixed, cut into batches, repeated and
// interrupted by restarts: as many episodes as there are faults, and each lasts
// from the first sign of it to the last.
func TestEpisodesOfBothInAnyOrder(t *testing.T) {
	top := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(top, fmt.Sprint(run, ".db"))
		s := store(t, path)
		defer func() { _ = s.Close() }()
		type fault struct{ started, cleared signal.Micros }
		var want []fault
		var predictions []model.Prediction
		var alarms [][]Local
		after := map[string]int{} // an alarm does not overtake the data by a fault
		begin := 1000
		for range rapid.IntRange(1, 4).Draw(t, "faults") {
			length := rapid.IntRange(10, 40).Draw(t, "length")
			f := fault{}
			past := len(predictions)
			kind := rapid.IntRange(0, 2).Draw(t, "who sees it")
			if kind != 0 {
				predictions = append(predictions, found(begin, begin+length)...)
				f = fault{minutes(begin), minutes(begin + length + Off)}
			}
			if kind != 1 {
				from := begin + rapid.IntRange(-3, 8).Draw(t, "alarm from")
				to := from + 3 + rapid.IntRange(0, length).Draw(t, "alarm to")
				both := []Local{local("rough", from, from+2, 0), local("rough", from, from+2, to)}
				if rapid.Bool().Draw(t, "the end first") {
					slices.Reverse(both)
				}
				alarms = append(alarms, both)
				after[both[0].ID] = past
				if kind == 0 {
					f = fault{minutes(from), minutes(to)}
				} else {
					f = fault{min(f.started, minutes(from)), max(f.cleared, minutes(to))}
				}
			}
			want = append(want, f)
			begin += 200
		}
		order := rapid.Permutation(alarms).Draw(t, "order of alarms")
		for i, j := 0, 0; i < len(predictions) || j < len(order); {
			switch {
			case j == len(order) || i < after[order[j][0].ID] || i < len(predictions) && rapid.Bool().Draw(t, "predictions"):
				k := min(i+rapid.IntRange(1, 30).Draw(t, "batch"), len(predictions))
				from := max(0, i-rapid.IntRange(0, 5).Draw(t, "again"))
				if _, err := s.Observe(t.Context(), predictions[from:k], well); err != nil {
					t.Fatal(err)
				}
				i = k
			default:
				from := max(0, j-rapid.IntRange(0, 2).Draw(t, "again"))
				for ; from <= j; from++ {
					if _, err := s.Local(t.Context(), order[from]); err != nil {
						t.Fatal(err)
					}
				}
				j++
			}
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
		var got []fault
		for _, k := range slices.Backward(kept) {
			got = append(got, fault{k.Started, k.Cleared})
		}
		if !slices.Equal(want, got) {
			t.Fatalf("episodes %v, want %v", got, want)
		}
		if waiting, err := s.Waiting(t.Context()); err != nil || len(waiting) != len(want) {
			t.Fatalf("%d requests, %v, want %d", len(waiting), err, len(want))
		}
	})
}
