package need

import "testing"

// recorder keeps the first verdict; that of a true testing.TB does not return.
type recorder struct {
	testing.TB
	verdict string
}

func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.take("failed") }
func (r *recorder) Skipf(string, ...any)  { r.take("skipped") }

func (r *recorder) take(verdict string) {
	if r.verdict == "" {
		r.verdict = verdict
	}
}

func TestSuite(t *testing.T) {
	for _, c := range []struct {
		require   string
		available bool
		want      string
	}{
		{"", true, ""},
		{"interop", true, ""},
		{"", false, "skipped"},
		{"interop", false, "failed"},
		{"browser, interop", false, "failed"},
		{"browser", false, "skipped"},
		{"interoperability", false, "skipped"},
	} {
		t.Setenv("HEADRACE_REQUIRE", c.require)
		r := &recorder{TB: t}
		Suite(r, "interop", c.available, "it is not there")
		if r.verdict != c.want {
			t.Errorf("HEADRACE_REQUIRE=%q, available %v: %q, want %q", c.require, c.available, r.verdict, c.want)
		}
	}
}
