package admin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"sync"
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
	// MaxConnections bounds the connections at once; a further one closes the longest idle one, or waits. Default 256.
	MaxConnections int
	// Logger receives one line per failed request; nil discards.
	Logger *slog.Logger
	// Registerer receives the metrics; nil means they are not registered.
	Registerer prometheus.Registerer
}

// Server serves the operators' HTTP. Make one with New.
type Server struct {
	opts     Options
	mux      *http.ServeMux
	http     *http.Server
	hosts    hosts
	listener *boundedListener
	routes   []string
	stopping chan struct{}
	done     chan struct{}
}

// New makes a server that does not accept yet. Routes are added with Handle before Start.
func New(o Options) (*Server, error) {
	if o.Listener == nil || o.Gatherer == nil || o.Health == nil {
		return nil, errors.New("admin server: Listener, Gatherer and Health are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 256
	}
	if o.MaxConnections < 1 {
		return nil, fmt.Errorf("admin server: MaxConnections is %d, must be at least 1", o.MaxConnections)
	}
	s := &Server{opts: o, mux: http.NewServeMux(), hosts: hostsOf(o.Listener.Addr()), listener: boundListener(o.Listener, o.MaxConnections),
		stopping: make(chan struct{}), done: make(chan struct{})}
	if o.Registerer != nil {
		if err := o.Registerer.Register(s.listener.gauge()); err != nil {
			return nil, fmt.Errorf("register the admin server's metrics: %w", err)
		}
	}
	s.handle("GET /{$}", s.index)
	s.handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP)
	s.handle("GET /healthz", s.healthz)
	s.handle("GET /readyz", s.readyz)
	s.handle("GET /debug/pprof/", pprof.Index)
	s.handle("GET /debug/pprof/cmdline", pprof.Cmdline)
	s.handle("GET /debug/pprof/profile", pprof.Profile)
	s.handle("GET /debug/pprof/symbol", pprof.Symbol)
	s.handle("GET /debug/pprof/trace", pprof.Trace)
	s.mux.HandleFunc("/", s.noRoute)
	s.http = &http.Server{
		ReadTimeout:       time.Minute,
		ConnState:         s.listener.state,
		Handler:           s.guard(s.mux),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	s.http.RegisterOnShutdown(sync.OnceFunc(func() { close(s.stopping) }))
	return s, nil
}

// handle adds a route and remembers it.
func (s *Server) handle(pattern string, h http.HandlerFunc) {
	s.routes = append(s.routes, pattern)
	s.mux.HandleFunc(pattern, h)
}

// Routes are the patterns of all routes, each with its method, in the order they were added.
func (s *Server) Routes() []string { return s.routes }

// index says what there is, to whoever opens the address in a browser.
func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Routes []string `json:"routes"`
	}{s.routes})
}

// noRoute answers what no route takes, and says so when only the method is wrong.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "/" {
			w.Header().Set("Allow", method)
			writeError(w, &Error{Status: http.StatusMethodNotAllowed, Message: fmt.Sprintf("%s takes %s, not %s; see docs/api.md", r.URL.Path, method, r.Method)})
			return
		}
	}
	writeError(w, &Error{Status: http.StatusNotFound, Message: fmt.Sprintf("no route %s %s; see docs/api.md", r.Method, r.URL.Path)})
}

// Start serves in the background and returns at once.
func (s *Server) Start(context.Context) error {
	go func() {
		defer close(s.done)
		if err := s.http.Serve(s.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.opts.Logger.Error("admin server ended", "error", err)
		}
	}()
	return nil
}

// Stopping is closed when Stop begins. A handler that waits for something ends then.
func (s *Server) Stopping() <-chan struct{} { return s.stopping }

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
		boundAnswer(w, r)
		if err := s.hosts.check(r); err != nil {
			writeError(w, err)
			return
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

// What a client may take to accept an answer; profiles are recorded within that time, too.
const (
	answerTime  = time.Minute
	profileTime = time.Hour
)

// boundAnswer ends the connection of a client that does not take its answer: it would keep a place from others.
func boundAnswer(w http.ResponseWriter, r *http.Request) {
	most := answerTime
	if strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
		most = profileTime
	}
	// Only a connection that is no connection has no deadline.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(most))
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
	s.handle(pattern, func(w http.ResponseWriter, r *http.Request) {
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
	if r.Method != http.MethodGet {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return &Error{Status: http.StatusUnsupportedMediaType, Message: "a request that changes something needs the header Content-Type: application/json"}
		}
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if errors.Is(err, io.EOF) {
		return nil // no body
	}
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more than one value")
		}
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return &Error{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("request body is longer than %d bytes", long.Limit)}
	case err != nil:
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
