package server

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/registry"
	"github.com/headrace/headrace/twin/state"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testClock is a plant's clock that tests move.
type testClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func (c *testClock) WaitUntil(ctx context.Context, _ time.Time) error { return ctx.Err() }

var start = time.Date(2020, 3, 9, 10, 14, 40, 0, time.UTC)

func micros(d time.Duration) signal.Micros { return signal.MicrosOf(start.Add(d)) }

// fakeSeries answers with what it was asked.
type fakeSeries struct {
	path     signal.Path
	from, to signal.Micros
	limit    int
	points   Points
	err      error
}

func (f *fakeSeries) Series(_ context.Context, path signal.Path, from, to signal.Micros, limit int) (Points, error) {
	f.path, f.from, f.to, f.limit = path, from, to, limit
	return f.points, f.err
}

// fixture is a pump of which current and pressure have spoken, and a stranger.
type fixture struct {
	*Server
	clock  *testClock
	twin   *state.Twin
	series *fakeSeries
}

func newFixture(t *testing.T, edit func(*Options)) *fixture {
	t.Helper()
	f := &fixture{clock: &testClock{at: start}, twin: state.New(), series: &fakeSeries{}}
	reg, err := registry.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), registry.Options{Clock: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	if _, err := reg.ApplyReplay(t.Context(), "skab", []signal.Asset{"skab/valve1/0", "skab/valve1/1"}); err != nil {
		t.Fatal(err)
	}
	if err := reg.Ensure(t.Context(), []signal.Path{"skab/valve1/0/strange thing"}); err != nil {
		t.Fatal(err)
	}
	row := func(p signal.Path, v signal.Value, event, alive time.Duration, q signal.Quality) state.Row {
		return state.Row{Path: p, Value: v, EventTime: micros(event), AliveAt: micros(alive), Quality: q, Good: q.Good()}
	}
	f.twin.Apply([]state.Row{
		row("skab/valve1/0/current", signal.NumberValue(1.3302), -time.Second, -time.Second, 192),
		row("skab/valve1/0/pressure", signal.NumberValue(math.Inf(1)), -10*time.Minute, -time.Minute, 0),
		row("skab/valve1/0/voltage", signal.NumberValue(233), -time.Hour, -301*time.Second, 192),
		row("skab/valve1/0/strange thing", signal.TextValue("<open>"), 2*time.Second, 2*time.Second, 192),
		row("other/line/new/running", signal.BoolValue(true), 0, 0, 192),
	})
	opts := Options{
		Twin: f.twin, Registry: reg, Series: f.series, Clock: f.clock, Version: "1.2.3",
		Counters: func() []signal.Counter {
			return []signal.Counter{{Station: "edge", Name: "emitted", Value: 7}, {Station: "bronze", Name: "rows", Value: 3}, {Station: "edge", Name: "emitted", Value: 1}, {Station: "edge", Name: "in-flight_now", Value: 2}}
		},
		Status: func() Status {
			return Status{Ready: true, Speed: 60, Version: "1.2.3", Roles: []string{"http"}, Addresses: map[string]string{"http": "127.0.0.1:8080"}}
		},
		UI: fstest.MapFS{
			"index.html":        {Data: []byte("<!doctype html>" + strings.Repeat(" ", 500))},
			"assets/app-1a.js":  {Data: []byte("start()")},
			"assets/app-1a.css": {Data: []byte("p{}")},
		},
	}
	if edit != nil {
		edit(&opts)
	}
	if f.Server, err = New(opts); err != nil {
		t.Fatal(err)
	}
	return f
}

// ask sends one request as a browser on this machine would.
func (f *fixture) ask(method, url string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, nil)
	r.Host = "localhost:8080"
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// object decodes a body; numbers stay float64.
func object(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return m
}

// jsonObject is an object of JSON as Go decodes it.
type jsonObject = map[string]any

func TestAnswers(t *testing.T) {
	f := newFixture(t, nil)
	ids := func(m jsonObject) jsonObject { // ids are derived; that they are there is enough
		for k, v := range m {
			switch v := v.(type) {
			case string:
				if (k == "asset_id" || k == "sensor_id") && len(v) == 36 {
					delete(m, k)
				}
			}
		}
		return m
	}
	head := jsonObject{
		"id": "skab/valve1/0", "site": "skab", "line": "valve1", "asset": "0", "class": "pump", "description": "pump loop of the SKAB test bench",
		"owner": "Rotating equipment", "claimed": true, "event_time": "2020-03-09T10:14:42Z", "age_seconds": -2.0, "status": "bad",
	}
	with := func(m jsonObject, more ...any) jsonObject {
		out := jsonObject{}
		maps.Copy(out, m)
		for i := 0; i < len(more); i += 2 {
			out[more[i].(string)] = more[i+1]
		}
		return out
	}

	t.Run("assets", func(t *testing.T) {
		got := object(t, f.ask("GET", "/api/v1/assets").Body.Bytes())
		for _, a := range got["assets"].([]any) {
			ids(a.(jsonObject))
		}
		want := jsonObject{"plant_time": "2020-03-09T10:14:40Z", "registry_version": 3.0, "assets": []any{
			jsonObject{
				"id": "other/line/new", "asset_id": "", "site": "other", "line": "line", "asset": "new", "class": "", "description": "", "owner": "", "claimed": false,
				"sensors": 1.0, "event_time": "2020-03-09T10:14:40Z", "age_seconds": 0.0, "status": "good",
			},
			with(head, "sensors", 9.0),
			with(head, "id", "skab/valve1/1", "asset", "1", "sensors", 8.0, "event_time", nil, "age_seconds", nil, "status", "silent"),
		}}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})

	t.Run("asset", func(t *testing.T) {
		got := object(t, f.ask("GET", "/api/v1/assets/skab/valve1/0").Body.Bytes())
		sensors := map[string]any{}
		for _, s := range got["sensors"].([]any) {
			sensors[s.(jsonObject)["sensor"].(string)] = ids(s.(jsonObject))
		}
		delete(got, "sensors")
		if d := cmp.Diff(with(head, "plant_time", "2020-03-09T10:14:40Z", "sensor_count", 9.0), ids(got)); d != "" {
			t.Error(d)
		}
		current := jsonObject{
			"path": "skab/valve1/0/current", "sensor": "current", "status": "good", "kind": "number", "value": 1.3302, "text": nil, "unit": "",
			"event_time": "2020-03-09T10:14:39Z", "alive_at": "2020-03-09T10:14:39Z", "age_seconds": 1.0, "alive_age_seconds": 1.0, "quality": 192.0, "good": true,
			"limits": jsonObject{"min": 0.0, "max": 50.0}, "interpolation": "step", "max_hold_seconds": 300.0, "owner": "Rotating equipment", "claimed": true,
		}
		for name, want := range map[string]jsonObject{
			"current": current,
			"pressure": with(current, "path", "skab/valve1/0/pressure", "sensor", "pressure", "status", "bad", "value", nil, "event_time", "2020-03-09T10:04:40Z",
				"alive_at", "2020-03-09T10:13:40Z", "age_seconds", 600.0, "alive_age_seconds", 60.0, "quality", 0.0, "good", false, "limits", jsonObject{"min": -5.0, "max": 25.0}),
			"voltage": with(current, "path", "skab/valve1/0/voltage", "sensor", "voltage", "status", "stale", "value", 233.0, "event_time", "2020-03-09T09:14:40Z",
				"alive_at", "2020-03-09T10:09:39Z", "age_seconds", 3600.0, "alive_age_seconds", 301.0, "limits", jsonObject{"min": 0.0, "max": 500.0}),
			"temperature": with(current, "path", "skab/valve1/0/temperature", "sensor", "temperature", "status", "silent", "kind", "", "value", nil, "unit", "Cel",
				"event_time", nil, "alive_at", nil, "age_seconds", nil, "alive_age_seconds", nil, "quality", nil, "good", nil, "limits", jsonObject{"min": -40.0, "max": 200.0}),
			"strange thing": with(current, "path", "skab/valve1/0/strange thing", "sensor", "strange thing", "kind", "text", "value", nil, "text", "<open>",
				"event_time", "2020-03-09T10:14:42Z", "alive_at", "2020-03-09T10:14:42Z", "age_seconds", -2.0, "alive_age_seconds", -2.0,
				"limits", jsonObject{"min": nil, "max": nil}, "owner", "", "claimed", false),
		} {
			if d := cmp.Diff(want, sensors[name]); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	})

	t.Run("asset that is not registered", func(t *testing.T) {
		got := object(t, f.ask("GET", "/api/v1/assets/other/line/new").Body.Bytes())
		sensor := got["sensors"].([]any)[0].(jsonObject)
		if sensor["kind"] != "bool" || sensor["value"] != 1.0 || sensor["claimed"] != false {
			t.Error(sensor)
		}
	})

	for name, c := range map[string]struct {
		url  string
		want jsonObject
	}{
		"stations": {"/api/v1/stations", jsonObject{"plant_time": "2020-03-09T10:14:40Z", "stations": []any{
			jsonObject{"station": "edge", "counters": []any{jsonObject{"name": "emitted", "value": 8.0}, jsonObject{"name": "in-flight_now", "value": 2.0}}},
			jsonObject{"station": "bronze", "counters": []any{jsonObject{"name": "rows", "value": 3.0}}},
		}}},
		"status": {"/api/v1/status", jsonObject{
			"ready": true, "plant_time": "2020-03-09T10:14:40Z", "speed": 60.0, "drained": false, "version": "1.2.3",
			"roles": []any{"http"}, "addresses": jsonObject{"http": "127.0.0.1:8080"}, "problems": []any{},
		}},
		"unclaimed": {"/api/v1/registry/unclaimed", jsonObject{"registry_version": 3.0, "sensors": []any{jsonObject{"path": "skab/valve1/0/strange thing", "since": "2020-03-09T10:14:40Z"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := f.ask("GET", c.url)
			if d := cmp.Diff(c.want, object(t, w.Body.Bytes())); d != "" {
				t.Error(d)
			}
			if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
				t.Error(w.Code, w.Header())
			}
		})
	}
}

func TestSeriesAnswers(t *testing.T) {
	f := newFixture(t, nil)
	const url = "/api/v1/sensors/skab/valve1/0/"
	type asked struct {
		Path     signal.Path
		From, To signal.Micros
		Limit    int
	}
	t.Run("raw", func(t *testing.T) {
		f.series.points = Points{
			T: []signal.Micros{1_500_000, 2_000_001}, Values: []signal.Value{signal.NumberValue(math.NaN()), signal.TextValue("<")}, Good: []bool{true, false},
		}
		got := object(t, f.ask("GET", url+"current").Body.Bytes())
		want := jsonObject{
			"path": "skab/valve1/0/current", "unit": "A", "plant_time": "2020-03-09T10:14:40Z", "from": "2020-03-09T10:04:39.000001Z", "to": "2020-03-09T10:14:39.000001Z",
			"mode": "raw", "count": 2.0, "t": []any{1.5, 2.000001}, "value": []any{nil, nil}, "text": []any{nil, "<"}, "good": []any{true, false},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("buckets", func(t *testing.T) {
		f.series.points = Points{Bucket: 2_500_000, T: []signal.Micros{1e6, 2e6}, Min: []float64{1, math.NaN()}, Max: []float64{3, math.NaN()}, Mean: []float64{2, math.NaN()}, N: []int64{4, 1}, GoodN: []int64{3, 0}}
		got := object(t, f.ask("GET", url+"strange%20thing?from=2020-03-09T00:00:00Z&to=2020-03-10T01:00:00%2B01:00&points=7").Body.Bytes())
		want := jsonObject{
			"path": "skab/valve1/0/strange thing", "unit": "", "plant_time": "2020-03-09T10:14:40Z", "from": "2020-03-09T00:00:00Z", "to": "2020-03-10T00:00:00Z",
			"mode": "buckets", "count": 5.0, "bucket_seconds": 2.5, "t": []any{1.0, 2.0}, "min": []any{1.0, nil}, "max": []any{3.0, nil}, "mean": []any{2.0, nil}, "n": []any{4.0, 1.0}, "good_n": []any{3.0, 0.0},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		day := signal.MicrosOf(time.Date(2020, 3, 9, 0, 0, 0, 0, time.UTC))
		if d := cmp.Diff(asked{"skab/valve1/0/strange thing", day, day + 24*3600e6, 7}, asked{f.series.path, f.series.from, f.series.to, f.series.limit}); d != "" {
			t.Error(d)
		}
	})
	t.Run("windows", func(t *testing.T) {
		ten := 10 * time.Minute
		for query, want := range map[string]asked{
			"temperature":                                  {"skab/valve1/0/temperature", micros(-ten), micros(0), 1200}, // never a value
			"current?from=2020-03-09T10:00:00Z":            {"skab/valve1/0/current", micros(-880 * time.Second), micros(-time.Second) + 1, 1200},
			"current?to=2020-03-09T10:00:00Z":              {"skab/valve1/0/current", micros(-880*time.Second - ten), micros(-880 * time.Second), 1200},
			"current?from=2021-01-01T00:00:00Z&points=100": {"skab/valve1/0/current", 1609459200e6, 1609459200e6 + 1, 100}, // newer than all
		} {
			if w := f.ask("GET", url+query); w.Code != 200 {
				t.Errorf("%s: %d %s", query, w.Code, w.Body)
			}
			if d := cmp.Diff(want, asked{f.series.path, f.series.from, f.series.to, f.series.limit}); d != "" {
				t.Errorf("%s: %s", query, d)
			}
		}
	})
}

func TestProblems(t *testing.T) {
	f := newFixture(t, nil)
	f.series.err = errors.New("secret path")
	bare := newFixture(t, func(o *Options) { o.Series, o.UI, o.Counters, o.Status = nil, nil, nil, nil })
	for name, c := range map[string]struct {
		f           *fixture
		method, url string
		header      []string
		status      int
		detail      string
	}{
		"unknown asset":     {f, "GET", "/api/v1/assets/a/b/c", nil, 404, "there is no asset a/b/c"},
		"unknown sensor":    {f, "GET", "/api/v1/sensors/skab/valve1/0/x", nil, 404, "there is no sensor skab/valve1/0/x"},
		"unknown operation": {f, "GET", "/api/v2/assets", nil, 404, "there is nothing at /api/v2/assets"},
		"method":            {f, "POST", "/api/v1/assets", []string{"Sec-Fetch-Site", "same-origin"}, 405, "POST is not a method of /api/v1/assets"},
		"method of page":    {f, "PUT", "/", nil, 405, "PUT is not a method of /"},
		"other site":        {f, "POST", "/api/v1/assets", []string{"Sec-Fetch-Site", "cross-site"}, 403, "another site"},
		"from after to":     {f, "GET", "/api/v1/sensors/skab/valve1/0/current?from=2020-03-09T10:00:00Z&to=2020-03-09T10:00:00Z", nil, 422, "from is not before to"},
		"no time":           {f, "GET", "/api/v1/sensors/skab/valve1/0/current?from=noon", nil, 422, "validation failed"},
		"too many points":   {f, "GET", "/api/v1/sensors/skab/valve1/0/current?points=10001", nil, 422, "validation failed"},
		"unknown parameter": {f, "GET", "/api/v1/status?verbose=1", nil, 422, "validation failed"},
		"lake is broken":    {f, "GET", "/api/v1/sensors/skab/valve1/0/current", nil, 500, "the log says why"},
		"no lake":           {bare, "GET", "/api/v1/sensors/skab/valve1/0/current", nil, 503, "no lake"},
		"no page":           {bare, "GET", "/", nil, 404, "this process has no page"},
		"no file":           {f, "GET", "/assets/gone.js", nil, 404, "there is nothing at /assets/gone.js"},
		"rebound name":      {f, "GET", "/api/v1/assets", []string{"Host", "evil.example:8080"}, 421, "evil.example:8080"},
		"no host":           {f, "GET", "/", []string{"Host", ""}, 421, ""},
		"live of too much":  {f, "GET", "/api/v1/live?under=a/b/c/d", nil, 422, "more than three names"},
		"live of no name":   {f, "GET", "/api/v1/live?under=a//c", nil, 422, "name is empty"},
		"live of what":      {f, "GET", "/api/v1/live?path=a", nil, 422, `unknown query parameter "path"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.f.ask(c.method, c.url, c.header...)
			if ct := w.Header().Get("Content-Type"); w.Code != c.status || ct != "application/problem+json" {
				t.Fatalf("%d %s: %s", w.Code, ct, w.Body)
			}
			got := object(t, w.Body.Bytes())
			if got["status"] != float64(c.status) || got["title"] != http.StatusText(c.status) || !strings.Contains(got["detail"].(string), c.detail) {
				t.Errorf("%v, want status %d and a detail with %q", got, c.status, c.detail)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Error("the answer tells the innards")
			}
		})
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "[::1]", "localhost.:8080"} {
		if w := f.ask("GET", "/api/v1/status", "Host", host); w.Code != 200 {
			t.Errorf("host %s: %d", host, w.Code)
		}
	}
	named := newFixture(t, func(o *Options) { o.Hosts = []string{"Plant.example:8080"} })
	if w := named.ask("GET", "/api/v1/status", "Host", "plant.example"); w.Code != 200 {
		t.Errorf("configured host: %d", w.Code)
	}
	if w := bare.ask("GET", "/api/v1/stations"); w.Body.String() != `{"plant_time":"2020-03-09T10:14:40Z","stations":[]}`+"\n" {
		t.Error(w.Body)
	}
}

func TestSecurityHeaders(t *testing.T) {
	f := newFixture(t, nil)
	for _, url := range []string{"/", "/api/v1/status", "/metrics", "/nothing.txt"} {
		w := f.ask("GET", url, "Origin", "https://elsewhere.example")
		h := w.Header()
		if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", url, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", url, h)
		}
	}
}

func TestPage(t *testing.T) {
	f := newFixture(t, nil)
	type got struct {
		Code                int
		Type, Cache, Coding string
	}
	for name, c := range map[string]struct {
		url    string
		header []string
		want   got
	}{
		"root":       {"/", nil, got{200, "text/html; charset=utf-8", "no-cache", ""}},
		"route":      {"/assets/skab/valve1/0", nil, got{200, "text/html; charset=utf-8", "no-cache", ""}},
		"compressed": {"/index.html", []string{"Accept-Encoding", "br, gzip"}, got{200, "text/html; charset=utf-8", "no-cache", "gzip"}},
		"too small":  {"/assets/app-1a.js", []string{"Accept-Encoding", "gzip"}, got{200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable", ""}},
		"style":      {"/assets/app-1a.css", nil, got{200, "text/css; charset=utf-8", "public, max-age=31536000, immutable", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			w := f.ask("GET", c.url, c.header...)
			h := w.Header()
			if d := cmp.Diff(c.want, got{w.Code, h.Get("Content-Type"), h.Get("Cache-Control"), h.Get("Content-Encoding")}); d != "" {
				t.Error(d)
			}
			again := f.ask("GET", c.url, append(c.header, "If-None-Match", h.Get("ETag"))...)
			if again.Code != 304 || again.Body.Len() != 0 {
				t.Errorf("again: %d, %d bytes", again.Code, again.Body.Len())
			}
			if head := f.ask("HEAD", c.url, c.header...); head.Body.Len() != 0 || head.Header().Get("Content-Length") == "" {
				t.Error("HEAD:", head.Header())
			}
		})
	}
	if _, err := New(Options{Twin: f.twin, Registry: f.opts.Registry, Clock: f.clock, UI: fstest.MapFS{"dist/index.html": {}}}); err == nil {
		t.Error("a page without index.html was taken")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a server without a twin was made")
	}
}

func TestMetrics(t *testing.T) {
	body := newFixture(t, nil).ask("GET", "/metrics").Body.String()
	for _, want := range []string{
		"# TYPE headrace_edge_emitted_total counter\nheadrace_edge_emitted_total 8\n",
		"# TYPE headrace_edge_in_flight gauge\nheadrace_edge_in_flight 2\n",
		"headrace_bronze_rows_total 3\n",
		"headrace_ready 1\n",
		"headrace_plant_time_seconds 1.58374888e+09\n",
		"headrace_twin_sensors 5\n",
		"go_goroutines ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	w := newFixture(t, nil).ask("GET", "/api/openapi.json")
	var doc any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("the API's document has changed; look at it and run the test with -update: %s", d)
	}
	if v := object(t, got)["openapi"]; v != "3.1.0" {
		t.Errorf("OpenAPI %v", v)
	}
}

// TestAnswersKeepTheirDocument compares every answer's keys with its schema.
func TestAnswersKeepTheirDocument(t *testing.T) {
	f := newFixture(t, nil)
	doc := object(t, f.ask("GET", "/api/openapi.json").Body.Bytes())
	for path, url := range map[string]string{
		"/api/v1/assets":                                 "/api/v1/assets",
		"/api/v1/assets/{site}/{line}/{asset}":           "/api/v1/assets/skab/valve1/0",
		"/api/v1/sensors/{site}/{line}/{asset}/{sensor}": "/api/v1/sensors/skab/valve1/0/current",
		"/api/v1/stations":                               "/api/v1/stations",
		"/api/v1/status":                                 "/api/v1/status",
		"/api/v1/registry/unclaimed":                     "/api/v1/registry/unclaimed",
	} {
		t.Run(path, func(t *testing.T) {
			op := doc["paths"].(jsonObject)[path].(jsonObject)["get"].(jsonObject)
			schema := op["responses"].(jsonObject)["200"].(jsonObject)["content"].(jsonObject)["application/json"].(jsonObject)["schema"].(jsonObject)
			conforms(t, doc, schema, object(t, f.ask("GET", url).Body.Bytes()), path)
		})
	}
}

// conforms checks types, required and unknown keys: what our document uses.
func conforms(t *testing.T, doc, schema jsonObject, v any, at string) {
	if ref, ok := schema["$ref"].(string); ok {
		schema = doc["components"].(jsonObject)["schemas"].(jsonObject)[strings.TrimPrefix(ref, "#/components/schemas/")].(jsonObject)
	}
	var types []any
	switch typ := schema["type"].(type) {
	case string:
		types = []any{typ}
	case []any:
		types = typ
	}
	kind := map[bool]string{true: "null"}[v == nil]
	switch v := v.(type) {
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case float64:
		if kind = "number"; v == math.Trunc(v) {
			kind = "integer"
		}
	case []any:
		kind = "array"
		for _, e := range v {
			conforms(t, doc, schema["items"].(jsonObject), e, at+"[]")
		}
	case jsonObject:
		kind = "object"
		properties, _ := schema["properties"].(jsonObject)
		for k, e := range v {
			if p, ok := properties[k].(jsonObject); ok {
				conforms(t, doc, p, e, at+"."+k)
			} else if more, ok := schema["additionalProperties"].(jsonObject); ok {
				conforms(t, doc, more, e, at+"."+k)
			} else {
				t.Errorf("%s.%s is not in the document", at, k)
			}
		}
		required, _ := schema["required"].([]any)
		for _, k := range required {
			if _, ok := v[k.(string)]; !ok {
				t.Errorf("%s.%s is missing", at, k)
			}
		}
	}
	for _, typ := range types {
		if typ == kind || typ == "number" && kind == "integer" {
			return
		}
	}
	t.Errorf("%s is %s, the document says %v", at, kind, types)
}
