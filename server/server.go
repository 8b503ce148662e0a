package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/registry"
	"github.com/headrace/headrace/twin/state"
)

// Options of a server.
type Options struct {
	Twin     *state.Twin
	Registry *registry.Registry
	Series   Series // nil: this process has no lake
	// Maintenance is nil in a process without alerts and orders.
	Maintenance Maintenance
	Counters    func() []signal.Counter // of every station in this process
	Clock       signal.Clock            // the plant's
	Status      func() Status
	UI          fs.FS    // the page, index.html at its root; nil: none
	Hosts       []string // host names it may be called by, beside the machine itself
	Version     string   // of the build, for the API's document
	Log         *slog.Logger
}

// Status is what a process says of itself.
type Status struct {
	Ready     bool
	Drained   bool // every reading of a replay is where it ends
	Speed     float64
	Version   string
	Roles     []string
	Addresses map[string]string // by protocol: http, mqtt, kafka
	Problems  []string
}

// The bounds of a connection. A stream of live updates renews its write
// deadline with each event.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	stopTimeout       = 1500 * time.Millisecond
)

// Server answers HTTP requests. It is an [http.Handler].
type Server struct {
	opts    Options
	log     *slog.Logger
	inner   http.Handler // without the check of the host
	handler http.Handler
	streams chan struct{} // one token per open stream
	closing chan struct{} // closed when Serve ends: streams end
	stop    sync.Once
}

// New returns a server; nothing runs yet.
func New(opts Options) (*Server, error) {
	if opts.Twin == nil || opts.Registry == nil || opts.Clock == nil {
		return nil, errors.New("setting up the server: it needs a twin, a registry and a clock")
	}
	s := &Server{opts: opts, log: opts.Log, streams: make(chan struct{}, maxStreams), closing: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	s.addAPI(mux)
	mux.Handle("GET /metrics", s.metrics())
	page, err := newPage(opts.UI)
	if err != nil {
		return nil, fmt.Errorf("setting up the server: %w", err)
	}
	mux.Handle("/", page)
	mux.HandleFunc("/api/", unknownAPI(mux))
	s.inner = secured(mux)
	s.handler = guarded(allowedHosts(opts.Hosts), s.inner)
	return s, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Serve answers requests until ctx ends, then ends the open streams, lets what
// runs finish and returns nil, within two seconds. It may be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hosts := allowedHosts(s.opts.Hosts)
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
		hosts = maps.Clone(hosts)
		hosts[a.IP.String()] = true
	}
	srv := &http.Server{
		Handler:           guarded(hosts, s.inner),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		s.endStreams()
		return errors.Join(fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err), srv.Close())
	case <-ctx.Done():
	}
	s.endStreams()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		s.log.Warn("requests were cut off at the stop", "err", err)
		_ = srv.Close() // the listener is closed already
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

func (s *Server) endStreams() { s.stop.Do(func() { close(s.closing) }) }

// plantNow is the plant's present in the resolution of all data.
func (s *Server) plantNow() signal.Micros { return signal.MicrosOf(s.opts.Clock.Now()) }

func (s *Server) counters() []signal.Counter {
	if s.opts.Counters == nil {
		return nil
	}
	return s.opts.Counters()
}

func (s *Server) status() Status {
	if s.opts.Status == nil {
		return Status{Ready: true, Speed: 1, Version: s.opts.Version}
	}
	return s.opts.Status()
}
