package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/headrace/headrace/signal"
)

// The bounds of live updates. A stream holds at most one waiting change per
// sensor; a slow reader gets fewer values, never late ones.
const (
	maxStreams     = 256
	streamPause    = 100 * time.Millisecond // between two lots of readings
	streamTick     = time.Second
	streamChunk    = 1024 // readings in one write
	streamDeadline = 10 * time.Second
	heartbeatTicks = 15
	retryMillis    = 2000
)

// addLive registers the stream; the API's document describes its events.
func (s *Server) addLive(api huma.API, mux *http.ServeMux) {
	const path = "/api/v1/live"
	schemas := api.OpenAPI().Components.Schemas
	event := func(t reflect.Type) *huma.Schema { return schemas.Schema(t, true, "") }
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "live", Method: http.MethodGet, Path: path, Summary: "Live updates as server-sent events",
		Description: "Events: `reading` (a Reading; at first all there are, then changes, of each sensor the newest), `clock` (a ClockTick) and `stations` (a StationList), both at once and then each second. A reconnect starts anew.",
		Parameters: []*huma.Param{{
			Name: "under", In: "query", Description: "only readings under this site, line or asset: site[/line[/asset]]", Schema: &huma.Schema{Type: huma.TypeString},
		}},
		Responses: map[string]*huma.Response{
			"200": {Description: "The stream", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{
				OneOf: []*huma.Schema{event(reflect.TypeFor[Reading]()), event(reflect.TypeFor[ClockTick]()), event(reflect.TypeFor[StationList]())},
			}}}},
			"default": {Description: "Error", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: event(reflect.TypeFor[huma.ErrorModel]())}}},
		},
	})
	mux.HandleFunc("GET "+path, s.live)
}

// under returns what a stream wants, nil if everything.
func under(prefix string) (func(signal.Path) bool, error) {
	if prefix == "" {
		return nil, nil
	}
	names := strings.Split(prefix, "/")
	if len(names) > 3 {
		return nil, fmt.Errorf("under %q has more than three names; want site, site/line or site/line/asset", prefix)
	}
	for _, n := range names {
		if err := signal.CheckName(n); err != nil {
			return nil, fmt.Errorf("under %q: %w", prefix, err)
		}
	}
	return func(p signal.Path) bool { return strings.HasPrefix(string(p), prefix+"/") }, nil
}

func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	match, err := under(query.Get("under"))
	for name := range query {
		if name != "under" && err == nil {
			err = fmt.Errorf("unknown query parameter %q; there is under", name)
		}
	}
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		problem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open, and no more are allowed", maxStreams))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy must not hold events back
	if r.Method == http.MethodHead {
		return
	}
	st := stream{w: w, rc: http.NewResponseController(w)}
	if err := s.follow(r, &st, match); err != nil {
		s.log.Debug("a stream of live updates ended", "err", err)
	}
}

// follow tells one client until it goes or the server stops.
func (s *Server) follow(r *http.Request, st *stream, match func(signal.Path) bool) error {
	sub := s.opts.Twin.Subscribe(match)
	defer sub.Close()
	fmt.Fprintf(&st.buf, "retry: %d\n\n", retryMillis)
	if err := s.tell(st); err != nil {
		return err
	}
	tick := time.NewTicker(streamTick)
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	var ready <-chan struct{} // nil during the pause
	for ticks := 1; ; {
		select {
		case <-r.Context().Done():
			return r.Context().Err()
		case <-s.closing:
			return nil
		case <-pause.C:
			ready = sub.Ready()
		case <-tick.C:
			if ticks++; ticks%heartbeatTicks == 0 {
				st.buf.WriteString(": alive\n\n")
			}
			if err := s.tell(st); err != nil {
				return err
			}
		case <-ready:
			// As many as there are now: what changes meanwhile has to wait for
			// the clock's turn.
			for left := s.opts.Twin.Len(); left > 0; left -= streamChunk {
				rows := sub.Take(streamChunk)
				if len(rows) == 0 {
					break
				}
				for i := range rows {
					if err := st.event("reading", reading(&rows[i])); err != nil {
						return err
					}
				}
				if err := st.flush(); err != nil {
					return err
				}
			}
			ready = nil
			pause.Reset(streamPause)
		}
	}
}

// tell sends the clock and the stations.
func (s *Server) tell(st *stream) error {
	if err := st.event("clock", s.tick()); err != nil {
		return err
	}
	if err := st.event("stations", s.stationList()); err != nil {
		return err
	}
	return st.flush()
}

// stream writes events to one client.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	buf bytes.Buffer
}

// event puts an event in front of the next flush.
func (st *stream) event(name string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("writing a %s event: %w", name, err)
	}
	fmt.Fprintf(&st.buf, "event: %s\ndata: %s\n\n", name, body)
	return nil
}

// flush sends what is buffered, or gives up on a client that does not read.
func (st *stream) flush() error {
	// Not every writer has deadlines, a test's for example.
	_ = st.rc.SetWriteDeadline(time.Now().Add(streamDeadline))
	_, err := st.w.Write(st.buf.Bytes())
	st.buf.Reset()
	if err != nil {
		return err
	}
	return st.rc.Flush()
}
