package filter

import "testing"

func TestAlike(t *testing.T) {
	set := func(c Config) *Set {
		t.Helper()
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := set(Config{Rules: []Rule{{Sensor: "flow*", Deadband: 1}, {Unit: "Cel", Deadband: 2}}})
	for name, c := range map[string]struct {
		other        Config
		sensor, unit string
		want         bool
	}{
		"the same":               {Config{Rules: []Rule{{Sensor: "flow*", Deadband: 1}}}, "flow_1", "", true},
		"found by another glob":  {Config{Rules: []Rule{{Sensor: "flow_1", Deadband: 1}}}, "flow_1", "", true},
		"another band":           {Config{Rules: []Rule{{Sensor: "flow*", Deadband: 3}}}, "flow_1", "", false},
		"no rule any more":       {Config{}, "x", "Cel", false},
		"no rule on either side": {Config{}, "x", "bar", true},
		"another heartbeat":      {Config{HeartbeatSeconds: 7}, "x", "bar", false},
		"everything":             {Config{PassAll: true}, "x", "bar", false},
	} {
		if got := one.Alike(set(c.other), c.sensor, c.unit); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
