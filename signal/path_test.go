package signal

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"a", "valve1", "de_acceleration.band.1x", "tür 1", "日本", "a%20b", "$SYS", strings.Repeat("x", MaxNameBytes), "\uFFFD"} {
		if err := CheckName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for bad, want := range map[string]string{
		"":                                  "is empty",
		"a/b":                               `holds '/'`,
		"a+":                                `holds '+'`,
		"#":                                 `holds '#'`,
		"a:b":                               `holds ':'`,
		"a\x00":                             `holds '\x00'`,
		"a\nb":                              `holds '\n'`,
		"\u0085":                            `holds '\u0085'`,
		"a\xff":                             "is not UTF-8",
		strings.Repeat("x", MaxNameBytes+1): "is longer than 200",
	} {
		if err := CheckName(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", bad, err, want)
		}
	}
}

func TestParsePath(t *testing.T) {
	p, err := ParsePath("skab/valve1/0/accelerometer1_rms")
	if err != nil || p.Asset() != "skab/valve1/0" || p.Sensor() != "accelerometer1_rms" || p.Asset().Sensor(p.Sensor()) != p {
		t.Errorf("%q, %v", p, err)
	}
	for bad, want := range map[string]string{
		"":            "1 names, want 4: site/line/asset/sensor",
		"a/b/c":       "3 names",
		"a/b/c/d/e":   "5 names",
		"a/b//d":      "name is empty",
		"/b/c/d":      "name is empty",
		"a/b/c/":      "name is empty",
		"a/b/c/d:raw": "not allowed",
	} {
		if p, err := ParsePath(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v; want error %q", bad, p, err, want)
		}
	}
}

func TestParseAsset(t *testing.T) {
	a, err := ParseAsset("s/l/a")
	if site, line, asset := a.Split(); err != nil || site != "s" || line != "l" || asset != "a" || NewAsset(site, line, asset) != a {
		t.Errorf("%q, %v", a, err)
	}
	for _, bad := range []string{"", "s", "s/l", "s/l/a/x", "s//a", "s/l/a:raw"} {
		if a, err := ParseAsset(bad); err == nil {
			t.Errorf("%q gave %q", bad, a)
		}
	}
	if site, line, asset := Asset("s").Split(); site != "s" || line != "" || asset != "" {
		t.Errorf("a name alone splits into %q, %q, %q", site, line, asset)
	}
	if p := Path("alone"); p.Asset() != "" || p.Sensor() != "alone" {
		t.Errorf("a name alone: %q, %q", p.Asset(), p.Sensor())
	}
}

func TestParseStream(t *testing.T) {
	for _, class := range []Class{Telemetry, Event, Raw, Refused} {
		s, err := ParseStream("s/l/a:" + string(class))
		if a, c := s.Split(); err != nil || a != "s/l/a" || c != class || NewStream(a, c) != s {
			t.Errorf("%q, %v", s, err)
		}
	}
	for bad, want := range map[string]string{
		"":                "has no class",
		"s/l/a":           "has no class",
		"s/l/a:":          `class "" is not`,
		"s/l/a:other":     `class "other" is not`,
		"s/l/a:raw:raw":   "is not telemetry, event, raw or refused",
		"s/l:raw":         "2 names, want 3",
		"s/l/a/x:raw":     "4 names, want 3",
		"s/l/a\x01:event": "not allowed",
	} {
		if s, err := ParseStream(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v; want error %q", bad, s, err, want)
		}
	}
}

// Names that pass the check can be joined and taken apart again.
func TestNamesSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var names [4]string
		for i := range names {
			names[i] = rapid.StringN(1, 20, MaxNameBytes).Filter(func(s string) bool { return CheckName(s) == nil }).Draw(t, "name")
		}
		a := NewAsset(names[0], names[1], names[2])
		p, err := ParsePath(string(a.Sensor(names[3])))
		if err != nil || p.Asset() != a || p.Sensor() != names[3] {
			t.Fatalf("%q: %v", p, err)
		}
		s, err := ParseStream(string(NewStream(a, Event)))
		if err != nil {
			t.Fatal(err)
		}
		if back, c := s.Split(); back != a || c != Event {
			t.Fatalf("%q: %q, %q", s, back, c)
		}
		if site, line, asset := a.Split(); site != names[0] || line != names[1] || asset != names[2] {
			t.Fatalf("%q: %q, %q, %q", a, site, line, asset)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	f.Add("s/l/a/x")
	f.Add("s/l/a:raw")
	f.Fuzz(func(t *testing.T, in string) {
		if p, err := ParsePath(in); err == nil {
			if _, err := ParseAsset(string(p.Asset())); err != nil {
				t.Fatal(err)
			}
			if err := CheckName(p.Sensor()); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := ParseStream(in); err == nil {
			a, _ := s.Split()
			if _, err := ParseAsset(string(a)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
