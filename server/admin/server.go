package admin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// MaxBodyBytes bounds a request body of the JSON API.
const MaxBodyBytes = 1 << 20

// Health says whether the node lives and serves.
type Health interface {
	// Live returns why the process can't serve at all and should be restarted, or nil.
	Live() error
	// Ready reports the start-up phase and whatever keeps the node from serving.
	Ready() Readiness
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Phase   string   `json:"phase"`             // name of the current start-up phase, or "serving", "stopping"
	Done    int      `json:"done"`              // units of the phase that are finished
	Total   int      `json:"total"`             // units of the phase in all; 0 when it has no units
	Seconds float64  `json:"seconds"`           // time since the phase began
	Reasons []string `json:"reasons,omitempty"` // why the node is not ready, one line each
}

// Options configures a Server.
type Options struct {
	// Listener is where the server accepts; required. The server closes it.
	Listener net.Listener
	// Gatherer is what /metrics shows; required.
	Gatherer prometheus.Gatherer
	// Health answers /healthz and /readyz; required.
	Health Health
	// Password, if set, is asked of every request but the health ones.
	Password string
	// Logger receives one line per failed request; nil discards.
	Logger *slog.Logger
}

// Server serves the operators' HTTP. Make one with New.
type Server struct {
	opts Options
	mux  *http.ServeMux
	http *http.Server
	done chan struct{}
}

// New makes a server that does not accept yet. Routes are added with Handle before Start.
func New(o Options) (*Server, error) {
	if o.Listener == nil || o.Gatherer == nil || o.Health == nil {
		return nil, errors.New("admin server: Listener, Gatherer and Health are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: o, mux: http.NewServeMux(), done: make(chan struct{})}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	s.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &Error{Status: http.StatusNotFound, Message: fmt.Sprintf("no route %s %s; the API is described in docs/operations.md", r.Method, r.URL.Path)})
	})
	s.http = &http.Server{
		Handler:           s.guard(s.mux),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Start serves in the background and returns at once.
func (s *Server) Start(context.Context) error {
	go func() {
		defer close(s.done)
		if err := s.http.Serve(s.opts.Listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.opts.Logger.Error("admin server ended", "error", err)
		}
	}()
	return nil
}

// Stop lets running requests finish until ctx ends, then cuts them off. It may be called more than once, and only after Start.
func (s *Server) Stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("drain admin requests: %w", err), s.http.Close())
	}
	<-s.done
	return err
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := s.opts.Health.Live(); err != nil {
		writeError(w, &Error{Status: http.StatusServiceUnavailable, Message: err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Live bool `json:"live"`
	}{true})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	r := s.opts.Health.Ready()
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, r)
}

// guard checks who calls and turns a panic into a 500 with the stack in the log.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.opts.Logger.Error("panic in an admin request", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				writeError(w, &Error{Status: http.StatusInternalServerError, Message: "internal error; see the node's log"})
			}
		}()
		if origin := r.Header.Get("Origin"); origin != "" {
			u, err := url.Parse(origin)
			if err != nil || u.Host != r.Host {
				writeError(w, &Error{Status: http.StatusForbidden, Message: fmt.Sprintf("origin %q may not call this node", origin)})
				return
			}
		}
		if !s.authorized(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="replicanode"`)
			writeError(w, &Error{Status: http.StatusUnauthorized, Message: "password required: send it by HTTP basic authentication (the CLI's --password)"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorized(r *http.Request) bool {
	if s.opts.Password == "" || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return true
	}
	_, password, ok := r.BasicAuth()
	return ok && subtle.ConstantTimeCompare([]byte(password), []byte(s.opts.Password)) == 1
}

// Error is a refusal with its HTTP status. A handler returns one to choose the status; any other error answers 500.
type Error struct {
	Status  int    `json:"-"`
	Message string `json:"error"`
}

func (e *Error) Error() string { return e.Message }

// BadRequest is a 400 that says what was wrong.
func BadRequest(format string, args ...any) error {
	return &Error{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// NotFound is a 404 that says what does not exist.
func NotFound(format string, args ...any) error {
	return &Error{Status: http.StatusNotFound, Message: fmt.Sprintf(format, args...)}
}

// Handle adds a route of the JSON API. The pattern is that of http.ServeMux with a method ("POST /v1/checkpoints"). In is decoded
// from the body of a request that has one; the handler reads path values and query from r.
func Handle[In, Out any](s *Server, pattern string, h func(r *http.Request, in In) (Out, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := decode(r, &in); err != nil {
			writeError(w, err)
			return
		}
		out, err := h(r, in)
		if err != nil {
			s.opts.Logger.Debug("admin request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, out)
	})
}

func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return BadRequest("request body is not what %s %s takes: %v", r.Method, r.URL.Path, err)
	}
	return nil
}

func writeError(w http.ResponseWriter, err error) {
	var refusal *Error
	if !errors.As(err, &refusal) {
		refusal = &Error{Status: http.StatusInternalServerError, Message: err.Error()}
	}
	writeJSON(w, refusal.Status, refusal)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A client that went away is not worth a log line.
	_, _ = w.Write(append(body, '\n'))
}
