package command

import (
	"strings"
	"testing"
	"time"
)

func TestRequests(t *testing.T) {
	good := `{"version":1,"id":"a","verb":"replay","who":"ann","why":"w","asset":"s/l/a","from":"2026-01-05T06:00:00Z","to":"2026-01-05T07:00:00Z"}`
	for name, c := range map[string]struct{ text, want string }{
		"whole":           {good, ""},
		"no JSON":         {"x", "invalid"},
		"later version":   {strings.Replace(good, `"version":1`, `"version":2`, 1), "version 2"},
		"nobody":          {strings.Replace(good, "ann", "", 1), "who"},
		"no id":           {strings.Replace(good, `"id":"a"`, `"id":""`, 1), "id"},
		"no reason":       {strings.Replace(good, `"why":"w"`, `"why":""`, 1), "why"},
		"not an asset":    {strings.Replace(good, "s/l/a", "s/l", 1), "site/line/asset"},
		"empty range":     {strings.Replace(good, "T07", "T06", 1), "empty"},
		"too long":        {`{"id":"` + strings.Repeat("x", MaxBytes) + `"}`, "more than"},
		"too much reason": {strings.Replace(good, `"why":"w"`, `"why":"`+strings.Repeat("x", 501)+`"`, 1), "500 bytes"},
	} {
		q, err := ParseRequest([]byte(c.text))
		if err == nil {
			err = q.Check()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestTopicsEscapeNames(t *testing.T) {
	if got := RequestTopic("a b", "n 1"); strings.Count(got, "/") != 3 || strings.Contains(got, " ") {
		t.Errorf("%s", got)
	}
}

func TestProgress(t *testing.T) {
	j := Job{From: 100, To: 200, At: 150, State: Running}
	if p := j.Progress(); p != 0.5 {
		t.Errorf("%v", p)
	}
	j.State = Done
	if p := j.Progress(); p != 1 {
		t.Errorf("%v", p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"a","verb":"replay","who":"ann","from":"2026-01-05T06:00:00Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := ParseRequest(b); err == nil {
			if q.ID == "" || q.Who == "" || q.From.After(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)) {
				t.Errorf("%+v", q)
			}
			_ = q.Check()
		}
		if d, err := ParseDesired(b); err == nil && d.ID == "" {
			t.Errorf("%+v", d)
		}
		_, _ = ParseAnswer(b)
		_, _ = ParseReport(b)
	})
}
