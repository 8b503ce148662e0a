package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/headrace/headrace/signal"
)

// Maintenance is what a process knows beyond values: risks, work orders, faults
// of sensors, what leaves the edges. Lists that are empty are no error.
type Maintenance interface {
	Risks(ctx context.Context) ([]Risk, error)
	Orders(ctx context.Context) ([]Order, error)
	// Order and CloseOrder answer ErrUnknown for a number that there is not, and
	// CloseOrder a *RefusedError for what cannot be.
	Order(ctx context.Context, id string) (Order, error)
	CloseOrder(ctx context.Context, id string, c Closing) (Order, error)
	// Spectrum is a picture (SVG); ErrUnknown while there is no waveform.
	Spectrum(ctx context.Context, id string) ([]byte, error)
	Service(ctx context.Context, asset signal.Asset) (Service, error)
	Findings(ctx context.Context) ([]Finding, error)
	Egress(ctx context.Context) (Egress, error)
	// Features are the feature views as of a time, for somebody who knows what
	// was available at another.
	Features(ctx context.Context, asset signal.Asset, at, known signal.Micros) (Features, error)
}

// ErrUnknown says that what was asked for is not there.
var ErrUnknown = errors.New("not there")

// RefusedError says why a change is not made. Conflict tells that another
// change stands in its way.
type RefusedError struct {
	Reason   string
	Conflict bool
}

func (e *RefusedError) Error() string { return e.Reason }

// Risk is how far a channel of a machine is from its healthy state.
type Risk struct {
	Asset         string         `json:"asset"`
	Class         string         `json:"class"`
	Description   string         `json:"description"`
	Owner         string         `json:"owner"`
	Sensor        string         `json:"sensor"`
	Status        string         `json:"status" enum:"healthy,watch,alert,no_model,not_running,sensor_fault,unknown"`
	Score         *float64       `json:"score" doc:"1 is the limit; null without a score"`
	EventTime     Moment         `json:"event_time"`
	AvailableTime Moment         `json:"available_time"`
	Model         string         `json:"model"`
	Trend         []TrendPoint   `json:"trend"`
	Contributions []Contribution `json:"contributions"`
	Order         string         `json:"order" doc:"the open order, if any"`
}

// TrendPoint is one score.
type TrendPoint struct {
	T     float64 `json:"t" doc:"seconds since 1970"`
	Score float64 `json:"score"`
}

// Contribution is a feature's part in a score.
type Contribution struct {
	Feature string  `json:"feature"`
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"`
	Healthy float64 `json:"healthy"`
	Z       float64 `json:"z"`
	Share   float64 `json:"share"`
}

// Order is a work order.
type Order struct {
	ID          string         `json:"id"`
	Asset       string         `json:"asset"`
	Title       string         `json:"title"`
	Defect      string         `json:"defect"`
	FailureMode string         `json:"failure_mode"`
	Priority    string         `json:"priority"`
	State       string         `json:"state" enum:"open,closed"`
	Started     Moment         `json:"started"`
	Raised      Moment         `json:"raised"`
	CreatedAt   Moment         `json:"created_at"`
	Confidence  float64        `json:"confidence"`
	Sure        string         `json:"sure"`
	Score       float64        `json:"score"`
	Model       string         `json:"model"`
	Sensor      string         `json:"sensor"`
	Window      Moment         `json:"window" doc:"end of the window that the evidence and the picture are of"`
	Evidence    []Contribution `json:"evidence"`
	ClosedAt    Moment         `json:"closed_at"`
	Closing     *ClosingBody   `json:"closing"`
}

// ClosingBody is how an order ended.
type ClosingBody struct {
	Code       string    `json:"code" enum:"repair,replace,adjust,inspect,no_fault"`
	FinishedAt time.Time `json:"finished_at" doc:"when the work was done, RFC 3339"`
	Verdict    string    `json:"verdict" enum:"confirmed,not_confirmed,unknown" doc:"whether the alert was right"`
	By         string    `json:"by,omitempty" maxLength:"200"`
	Note       string    `json:"note,omitempty" maxLength:"4000"`
}

// Closing is the same on its way to the order book.
type Closing struct {
	Code, Verdict, By, Note string
	FinishedAt              signal.Micros
}

// Service is an asset's service counter.
type Service struct {
	Asset    string        `json:"asset"`
	Hours    *float64      `json:"hours" doc:"of the plant's time since the last repair; null if there was none"`
	Services []ServiceItem `json:"services"`
}

// ServiceItem is a repair or replacement.
type ServiceItem struct {
	Order      string `json:"order"`
	Code       string `json:"code"`
	FinishedAt Moment `json:"finished_at"`
	RecordedAt Moment `json:"recorded_at"`
}

// Finding is a fault of a sensor.
type Finding struct {
	Path     string `json:"path"`
	Kind     string `json:"kind" enum:"stuck,dead,impossible"`
	State    string `json:"state" enum:"open,ended"`
	Since    Moment `json:"since"`
	Until    Moment `json:"until"`
	Detected Moment `json:"detected"`
	Evidence string `json:"evidence"`
	Owner    string `json:"owner"`
}

// Egress is what left the edges of this process since it started.
type Egress struct {
	Classes []EgressClass `json:"classes"`
	Births  int64         `json:"births_bytes"`
	Idle    int64         `json:"idle_bytes"`
	Acks    int64         `json:"acks_bytes"`
	Sent    int64         `json:"sent_bytes" doc:"all of it, acknowledgements included"`
	Raw     int64         `json:"raw_bytes"`
	Saved   float64       `json:"saved" doc:"share of raw; below 0 more was sent than raw would be"`
}

// EgressClass is the same of a class of sensors.
type EgressClass struct {
	Class         string  `json:"class"`
	Readings      int64   `json:"readings" doc:"of vibration, samples"`
	Raw           int64   `json:"raw_bytes" doc:"as 16-bit counts under zstd"`
	Data          int64   `json:"data_bytes"`
	Heartbeats    int64   `json:"heartbeat_bytes"`
	Waveforms     int64   `json:"waveform_bytes"`
	Resent        int64   `json:"resent_bytes"`
	MaxError      float64 `json:"max_error" doc:"largest difference between a value and what the far end shows"`
	MaxErrorUnit  string  `json:"max_error_unit"`
	MaxErrorPath  string  `json:"max_error_path"`
	MaxErrorBands float64 `json:"max_error_of_deadband"`
}

// Features are what the feature views say of an asset as of a time.
type Features struct {
	Asset     string            `json:"asset"`
	At        Moment            `json:"at"`
	Known     Moment            `json:"known" doc:"what was available later than this is left out"`
	Vibration []ChannelFeatures `json:"vibration"`
	Process   ProcessFeatures   `json:"process"`
}

// ChannelFeatures is the row of features.vibration that holds for a channel.
type ChannelFeatures struct {
	Sensor        string            `json:"sensor"`
	Status        string            `json:"status" enum:"found,not_available,outside_ttl,retracted"`
	EventTime     Moment            `json:"event_time" doc:"end of the window"`
	AvailableTime Moment            `json:"available_time"`
	Running       bool              `json:"running"`
	Windows       int               `json:"windows" doc:"that the means are over"`
	Values        map[string]Number `json:"values"`
}

// ProcessFeatures is the row of features.process that holds.
type ProcessFeatures struct {
	Status            string            `json:"status" enum:"found,not_available,outside_ttl,retracted"`
	EventTime         Moment            `json:"event_time" doc:"end of the minute"`
	AvailableTime     Moment            `json:"available_time"`
	Running           bool              `json:"running"`
	State             string            `json:"state"`
	HoursSinceService Number            `json:"hours_since_service"`
	Means             map[string]Number `json:"means"`
}

// The bodies of lists.
type (
	// RiskList are the risks, the worst first.
	RiskList struct {
		PlantTime Moment `json:"plant_time"`
		Risks     []Risk `json:"risks"`
	}
	// OrderList are orders, the newest first.
	OrderList struct {
		Orders []Order `json:"orders"`
	}
	// FindingList are findings, the open ones first.
	FindingList struct {
		Findings []Finding `json:"findings"`
	}
)

type orderInput struct {
	ID string `path:"id" maxLength:"40"`
}

type ordersInput struct {
	State string `query:"state" enum:"open,closed"`
}

type closeInput struct {
	ID   string `path:"id" maxLength:"40"`
	Body ClosingBody
}

func (s *Server) addMaintenance(api huma.API) {
	get(api, "list-risks", "/api/v1/risks", "How far each machine is from its healthy state, the worst first", s.listRisks)
	get(api, "list-orders", "/api/v1/orders", "Work orders, the newest first", s.listOrders)
	get(api, "get-order", "/api/v1/orders/{id}", "One work order with its evidence", s.getOrder, http.StatusNotFound)
	get(api, "list-findings", "/api/v1/findings", "Faults of sensors", s.listFindings)
	get(api, "get-egress", "/api/v1/egress", "What left the edges against what raw data would be", s.getEgress)
	get(api, "get-service", "/api/v1/assets/{site}/{line}/{asset}/service", "An asset's service counter", s.getService)
	get(api, "get-features", "/api/v1/assets/{site}/{line}/{asset}/features", "The features of an asset as of a time", s.getFeatures)
	huma.Register(api, huma.Operation{
		OperationID: "close-order", Method: http.MethodPost, Path: "/api/v1/orders/{id}/close", Summary: "Close a work order with a code and a verdict",
		Errors: []int{http.StatusNotFound, http.StatusConflict}, MaxBodyBytes: 16 << 10,
	}, func(ctx context.Context, in *closeInput) (*answer[Order], error) {
		o, err := s.closeOrder(ctx, in)
		if err != nil {
			return nil, err
		}
		return &answer[Order]{CacheControl: "no-store", Body: o}, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "get-spectrum", Method: http.MethodGet, Path: "/api/v1/orders/{id}/spectrum.svg", Summary: "The spectrum that a work order rests on",
		Errors:    []int{http.StatusNotFound},
		Responses: map[string]*huma.Response{"200": {Description: "A picture", Content: map[string]*huma.MediaType{"image/svg+xml": {}}}},
	}, s.getSpectrum)
}

func (s *Server) unknown(what string, err error) error {
	if errors.Is(err, ErrUnknown) {
		return huma.Error404NotFound(what)
	}
	return s.broken("looking up maintenance", err)
}

func (s *Server) listRisks(ctx context.Context, _ *struct{}) (out RiskList, err error) {
	out = RiskList{PlantTime: Moment(s.plantNow()), Risks: []Risk{}}
	if s.opts.Maintenance == nil {
		return out, nil
	}
	risks, err := s.opts.Maintenance.Risks(ctx)
	if err != nil {
		return out, s.broken("reading risks", err)
	}
	score := func(r Risk) float64 {
		if r.Score == nil {
			return -1
		}
		return *r.Score
	}
	slices.SortStableFunc(risks, func(a, b Risk) int {
		switch x, y := score(a), score(b); {
		case x > y:
			return -1
		case x < y:
			return 1
		case a.Asset < b.Asset:
			return -1
		}
		return 1
	})
	out.Risks = append(out.Risks, risks...)
	return out, nil
}

func (s *Server) listOrders(ctx context.Context, in *ordersInput) (out OrderList, err error) {
	out.Orders = []Order{}
	if s.opts.Maintenance == nil {
		return out, nil
	}
	orders, err := s.opts.Maintenance.Orders(ctx)
	if err != nil {
		return out, s.broken("reading work orders", err)
	}
	for _, o := range orders {
		if in.State == "" || in.State == o.State {
			out.Orders = append(out.Orders, o)
		}
	}
	return out, nil
}

func (s *Server) getOrder(ctx context.Context, in *orderInput) (Order, error) {
	if s.opts.Maintenance == nil {
		return Order{}, huma.Error404NotFound("this process has no order book")
	}
	o, err := s.opts.Maintenance.Order(ctx, in.ID)
	if err != nil {
		return o, s.unknown("there is no order "+in.ID, err)
	}
	return o, nil
}

func (s *Server) closeOrder(ctx context.Context, in *closeInput) (Order, error) {
	if s.opts.Maintenance == nil {
		return Order{}, huma.Error404NotFound("this process has no order book")
	}
	b := in.Body
	o, err := s.opts.Maintenance.CloseOrder(ctx, in.ID, Closing{
		Code: b.Code, Verdict: b.Verdict, By: b.By, Note: b.Note, FinishedAt: signal.MicrosOf(b.FinishedAt),
	})
	var refused *RefusedError
	switch {
	case errors.As(err, &refused) && refused.Conflict:
		return o, huma.Error409Conflict(refused.Reason)
	case errors.As(err, &refused):
		return o, huma.Error422UnprocessableEntity(refused.Reason)
	case err != nil:
		return o, s.unknown("there is no order "+in.ID, err)
	}
	return o, nil
}

type picture struct {
	ContentType  string `header:"Content-Type"`
	CacheControl string `header:"Cache-Control"`
	Body         []byte
}

func (s *Server) getSpectrum(ctx context.Context, in *orderInput) (*picture, error) {
	if s.opts.Maintenance == nil {
		return nil, huma.Error404NotFound("this process has no order book")
	}
	svg, err := s.opts.Maintenance.Spectrum(ctx, in.ID)
	if err != nil {
		return nil, s.unknown(fmt.Sprintf("there is no waveform for order %s: the edge let none through at that time, or it has not arrived", in.ID), err)
	}
	return &picture{ContentType: "image/svg+xml", CacheControl: "no-store", Body: svg}, nil
}

func (s *Server) listFindings(ctx context.Context, _ *struct{}) (out FindingList, err error) {
	out.Findings = []Finding{}
	if s.opts.Maintenance == nil {
		return out, nil
	}
	findings, err := s.opts.Maintenance.Findings(ctx)
	if err != nil {
		return out, s.broken("reading findings", err)
	}
	out.Findings = append(out.Findings, findings...)
	slices.SortStableFunc(out.Findings, func(a, b Finding) int {
		switch {
		case a.State != b.State && a.State == "open":
			return -1
		case a.State != b.State:
			return 1
		}
		return int(max(min(b.Since-a.Since, 1), -1))
	})
	return out, nil
}

func (s *Server) getEgress(ctx context.Context, _ *struct{}) (Egress, error) {
	if s.opts.Maintenance == nil {
		return Egress{Classes: []EgressClass{}}, nil
	}
	e, err := s.opts.Maintenance.Egress(ctx)
	if err != nil {
		return e, s.broken("reading the egress meter", err)
	}
	return e, nil
}

func (s *Server) getService(ctx context.Context, in *assetInput) (Service, error) {
	a := signal.NewAsset(in.Site, in.Line, in.Asset)
	if s.opts.Maintenance == nil {
		return Service{Asset: string(a), Services: []ServiceItem{}}, nil
	}
	out, err := s.opts.Maintenance.Service(ctx, a)
	if err != nil {
		return out, s.broken("reading services", err)
	}
	return out, nil
}

type featuresInput struct {
	Site  string    `path:"site"`
	Line  string    `path:"line"`
	Asset string    `path:"asset"`
	At    time.Time `query:"at" doc:"default: now, by the plant's clock"`
	Known time.Time `query:"known" doc:"default: at; not later than it"`
}

func (s *Server) getFeatures(ctx context.Context, in *featuresInput) (Features, error) {
	a := signal.NewAsset(in.Site, in.Line, in.Asset)
	at := s.plantNow()
	if !in.At.IsZero() {
		at = signal.MicrosOf(in.At)
	}
	known := at
	if !in.Known.IsZero() {
		known = signal.MicrosOf(in.Known)
	}
	if known > at {
		return Features{}, huma.Error422UnprocessableEntity("known lies after at: what is read as of a time may not know what came later")
	}
	if s.opts.Maintenance == nil {
		return Features{Asset: string(a), At: Moment(at), Known: Moment(known), Vibration: []ChannelFeatures{}, Process: ProcessFeatures{Status: "not_available"}}, nil
	}
	out, err := s.opts.Maintenance.Features(ctx, a, at, known)
	if err != nil {
		return out, s.broken("reading features", err)
	}
	return out, nil
}
