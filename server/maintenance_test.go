package server

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

// fakeOffice answers with what it holds, and notes what it was asked.
type fakeOffice struct {
	risks    []Risk
	orders   []Order
	findings []Finding
	err      error

	closed    Closing
	at, known signal.Micros
}

func (f *fakeOffice) Risks(context.Context) ([]Risk, error)   { return f.risks, f.err }
func (f *fakeOffice) Orders(context.Context) ([]Order, error) { return f.orders, f.err }

func (f *fakeOffice) Order(_ context.Context, id string) (Order, error) {
	for _, o := range f.orders {
		if o.ID == id {
			return o, nil
		}
	}
	return Order{}, ErrUnknown
}

func (f *fakeOffice) CloseOrder(_ context.Context, id string, c Closing) (Order, error) {
	f.closed = c
	if f.err != nil {
		return Order{}, f.err
	}
	return f.Order(context.Background(), id)
}

func (f *fakeOffice) Spectrum(_ context.Context, id string) ([]byte, error) {
	if id != "WO-000001" {
		return nil, ErrUnknown
	}
	return []byte("<svg/>"), f.err
}

func (f *fakeOffice) Service(_ context.Context, a signal.Asset) (Service, error) {
	return Service{Asset: string(a), Services: []ServiceItem{}}, f.err
}

func (f *fakeOffice) Findings(context.Context) ([]Finding, error) { return f.findings, f.err }
func (f *fakeOffice) Egress(context.Context) (Egress, error) {
	return Egress{Sent: 1, Raw: 4, Saved: 0.75}, f.err
}

func (f *fakeOffice) Features(_ context.Context, a signal.Asset, at, known signal.Micros) (Features, error) {
	f.at, f.known = at, known
	return Features{Asset: string(a), Process: ProcessFeatures{Status: "found", HoursSinceService: Number(math.NaN())}}, f.err
}

func withOffice(t *testing.T) (*fixture, *fakeOffice) {
	score := func(v float64) *float64 { return &v }
	o := &fakeOffice{
		risks: []Risk{{Asset: "b", Status: "no_model"}, {Asset: "c", Score: score(0.5)}, {Asset: "a", Status: "no_model"}, {Asset: "d", Score: score(7)}},
		orders: []Order{
			{ID: "WO-000002", Asset: "skab/valve1/1", State: "closed", Closing: &ClosingBody{Code: "repair", Verdict: "confirmed", FinishedAt: start}},
			{ID: "WO-000001", Asset: "skab/valve1/0", State: "open"},
		},
		findings: []Finding{{Path: "p1", State: "ended", Since: 9}, {Path: "p2", State: "open", Since: 1}, {Path: "p3", State: "open", Since: 5}},
	}
	return newFixture(t, func(opts *Options) { opts.Maintenance = o }), o
}

// names picks a field of each item of a list.
func names(t *testing.T, w *httptest.ResponseRecorder, list, field string) (out []string) {
	t.Helper()
	for _, item := range object(t, w.Body.Bytes())[list].([]any) {
		out = append(out, item.(jsonObject)[field].(string))
	}
	return out
}

func TestMaintenanceLists(t *testing.T) {
	f, _ := withOffice(t)
	for _, c := range []struct {
		url, list, field string
		want             []string
	}{
		{"/api/v1/risks", "risks", "asset", []string{"d", "c", "a", "b"}}, // the worst first
		{"/api/v1/orders", "orders", "id", []string{"WO-000002", "WO-000001"}},
		{"/api/v1/orders?state=open", "orders", "id", []string{"WO-000001"}},
		{"/api/v1/findings", "findings", "path", []string{"p3", "p2", "p1"}}, // open ones first, the newest first
	} {
		w := f.ask("GET", c.url)
		if d := cmp.Diff(c.want, names(t, w, c.list, c.field)); d != "" {
			t.Errorf("%s: %s", c.url, d)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached", c.url)
		}
	}
}

func TestMaintenanceStatuses(t *testing.T) {
	f, o := withOffice(t)
	for url, want := range map[string]int{
		"/api/v1/orders?state=lost":                     422,
		"/api/v1/orders/WO-000001":                      200,
		"/api/v1/orders/WO-000009":                      404,
		"/api/v1/orders/WO-000001/spectrum.svg":         200,
		"/api/v1/orders/WO-000002/spectrum.svg":         404,
		"/api/v1/assets/skab/valve1/0/service":          200,
		"/api/v1/egress":                                200,
		"/api/v1/assets/skab/valve1/0/features":         200,
		"/api/v1/assets/skab/valve1/0/features?at=then": 422,
		"/api/v1/assets/skab/valve1/0/features?at=2020-03-09T10:00:00Z&known=2020-03-09T10:00:01Z": 422,
	} {
		if w := f.ask("GET", url); w.Code != want {
			t.Errorf("%s: %d %s, want %d", url, w.Code, w.Body, want)
		}
	}
	o.err = errors.New("secret innards")
	for _, url := range []string{
		"/api/v1/risks", "/api/v1/orders", "/api/v1/findings", "/api/v1/egress", "/api/v1/assets/skab/valve1/0/service",
		"/api/v1/assets/skab/valve1/0/features", "/api/v1/orders/WO-000001/spectrum.svg",
	} {
		if w := f.ask("GET", url); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s with a broken office: %d %s", url, w.Code, w.Body)
		}
	}
}

// What is read as of a time knows no more than what was available then.
func TestFeaturesTimes(t *testing.T) {
	f, o := withOffice(t)
	at := micros(0)
	for query, want := range map[string][2]signal.Micros{
		"":                         {at, at},
		"?at=2020-03-09T10:14:00Z": {at - 40e6, at - 40e6},
		"?at=2020-03-09T10:14:00Z&known=2020-03-09T10:13:00Z": {at - 40e6, at - 100e6},
		"?known=2020-03-09T10:13:00Z":                         {at, at - 100e6},
	} {
		body := object(t, f.ask("GET", "/api/v1/assets/skab/valve1/0/features"+query).Body.Bytes())
		if d := cmp.Diff(want, [2]signal.Micros{o.at, o.known}); d != "" {
			t.Errorf("%q: %s", query, d)
		}
		if body["asset"] != "skab/valve1/0" || body["process"].(jsonObject)["hours_since_service"] != nil {
			t.Errorf("%q: %v", query, body)
		}
	}
}

func TestCloseOrder(t *testing.T) {
	f, o := withOffice(t)
	send := func(url, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, url, strings.NewReader(body))
		r.Host = "localhost:8080"
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w
	}
	const url = "/api/v1/orders/WO-000001/close"
	good := `{"code": "repair", "finished_at": "2020-03-09T10:00:00Z", "verdict": "confirmed", "by": "B. Meier", "note": "bearing replaced"}`
	if w := send(url, good); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want := Closing{Code: "repair", Verdict: "confirmed", By: "B. Meier", Note: "bearing replaced", FinishedAt: micros(-880e9)}
	if d := cmp.Diff(want, o.closed); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		what, url, body string
		err             error
		code            int
	}{
		{"an unknown order", "/api/v1/orders/WO-000009/close", good, nil, 404},
		{"a code that is none", url, strings.Replace(good, "repair", "ignore", 1), nil, 422},
		{"no verdict", url, `{"code": "repair", "finished_at": "2020-03-09T10:00:00Z"}`, nil, 422},
		{"no JSON", url, `{`, nil, 400},
		{"too long", url, strings.Replace(good, "B. Meier", strings.Repeat("b", 20<<10), 1), nil, 413},
		{"another closing", url, good, &RefusedError{Reason: "closed already", Conflict: true}, 409},
		{"the future", url, good, &RefusedError{Reason: "lies ahead"}, 422},
		{"a broken book", url, good, errors.New("secret"), 500},
	} {
		o.err = c.err
		if w := send(c.url, c.body); w.Code != c.code || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s, want %d", c.what, w.Code, w.Body, c.code)
		}
	}
}

// A process without alerts and orders has empty lists and no order.
func TestWithoutMaintenance(t *testing.T) {
	f := newFixture(t, nil)
	for url, want := range map[string]int{
		"/api/v1/risks": 200, "/api/v1/orders": 200, "/api/v1/findings": 200, "/api/v1/egress": 200, "/api/v1/orders/WO-000001": 404,
		"/api/v1/orders/WO-000001/spectrum.svg": 404, "/api/v1/assets/skab/valve1/0/service": 200, "/api/v1/assets/skab/valve1/0/features": 200,
	} {
		if w := f.ask("GET", url); w.Code != want {
			t.Errorf("%s: %d, want %d", url, w.Code, want)
		}
	}
}
