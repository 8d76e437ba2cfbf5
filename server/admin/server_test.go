package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type health struct {
	live  error
	ready Readiness
}

func (h *health) Live() error      { return h.live }
func (h *health) Ready() Readiness { return h.ready }

// serve runs a server with two routes and returns its address.
func serve(t *testing.T, h *health, password string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Listener: l, Gatherer: prometheus.NewRegistry(), Health: h, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	type echo struct {
		Word string `json:"word"`
	}
	Handle(s, "POST /v1/echo", func(_ *http.Request, in echo) (echo, error) {
		if in.Word == "panic" {
			panic("asked for")
		}
		if in.Word == "" {
			return echo{}, BadRequest("word is empty; send one")
		}
		return in, nil
	})
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("second stop: %v", err)
		}
	})
	return l.Addr().String()
}

func TestReadyzSaysWhyNot(t *testing.T) {
	h := &health{ready: Readiness{Phase: "open_replicas", Done: 3, Total: 8, Reasons: []string{"partition 4: replaying"}}}
	c := NewClient(serve(t, h, ""), "")
	defer c.Close()
	r, err := Get[Readiness](context.Background(), c, "/readyz")
	if err != nil || r.Ready || r.Phase != "open_replicas" || r.Done != 3 || len(r.Reasons) != 1 {
		t.Fatalf("readyz: %+v, %v", r, err)
	}
	h.live = errors.New("disk gone")
	if _, err := Get[struct{}](context.Background(), c, "/healthz"); err == nil || !strings.Contains(err.Error(), "disk gone") {
		t.Fatalf("healthz: %v", err)
	}
}

func TestBadRequestsAreRefusedWithAReason(t *testing.T) {
	addr := serve(t, &health{}, "")
	for _, tc := range []struct {
		name, method, path, origin, body string
		status                           int
		want                             string
	}{
		{"wrong method", "GET", "/v1/echo", "", "", 405, "/v1/echo takes POST, not GET"},
		{"two values", "POST", "/v1/echo", "", `{"word":"x"}{}`, 400, "more than one value"},
		{"unknown route", "GET", "/v1/nothing", "", "", 404, "no route GET /v1/nothing"},
		{"not JSON", "POST", "/v1/echo", "", "{", 400, "not what POST /v1/echo takes"},
		{"unknown field", "POST", "/v1/echo", "", `{"wrod":"x"}`, 400, "wrod"},
		{"no body", "POST", "/v1/echo", "", "", 400, "word is empty"},
		{"too long", "POST", "/v1/echo", "", `{"word":"` + strings.Repeat("x", MaxBodyBytes) + `"}`, 413, "longer than 1048576 bytes"},
		{"another site", "POST", "/v1/echo", "http://example.com", `{"word":"x"}`, 403, "example.com"},
		{"panic", "POST", "/v1/echo", "", `{"word":"panic"}`, 500, "internal error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest(tc.method, "http://"+addr+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json; charset=utf-8")
			if tc.origin != "" {
				req.Header.Set("Origin", tc.origin)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status || !strings.Contains(string(body), tc.want) {
				t.Fatalf("got %d %s, want %d with %q", resp.StatusCode, body, tc.status, tc.want)
			}
		})
	}
}

// TestTheBareAddressListsTheRoutes: whoever opens it in a browser learns where to go.
func TestTheBareAddressListsTheRoutes(t *testing.T) {
	c := NewClient(serve(t, &health{}, ""), "")
	defer c.Close()
	answer, err := Get[struct {
		Routes []string `json:"routes"`
	}](t.Context(), c, "/")
	if err != nil || !slices.Contains(answer.Routes, "GET /readyz") || !slices.Contains(answer.Routes, "POST /v1/echo") {
		t.Errorf("%q, %v", answer.Routes, err)
	}
}

func TestPasswordGuardsAllButHealth(t *testing.T) {
	addr := serve(t, &health{ready: Readiness{Ready: true}}, "secret")
	open, closed := NewClient(addr, "secret"), NewClient(addr, "wrong")
	defer open.Close()
	defer closed.Close()
	type word struct {
		Word string `json:"word"`
	}
	if _, err := Post[word](context.Background(), closed, "/v1/echo", word{"a"}); err == nil || !strings.Contains(err.Error(), "password required") {
		t.Fatalf("wrong password: %v", err)
	}
	if got, err := Post[word](context.Background(), open, "/v1/echo", word{"a"}); err != nil || got.Word != "a" {
		t.Fatalf("right password: %v %v", got, err)
	}
	if _, err := Get[Readiness](context.Background(), closed, "/readyz"); err != nil {
		t.Fatalf("readyz needs no password: %v", err)
	}
}

// TestPagesOfOtherSitesCannotCall: not from another origin, not under a name that was made to mean this machine, and not with what a
// form can send.
func TestPagesOfOtherSitesCannotCall(t *testing.T) {
	addr := serve(t, &health{}, "")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, host, origin, kind string
		status                   int
	}{
		{"the CLI", addr, "", "application/json", 200},
		{"a page of the node", addr, "http://" + addr, "application/json", 200},
		{"localhost", "localhost:" + port, "", "application/json", 200},
		{"without a port", "127.0.0.1", "", "application/json", 200},
		{"version 6", "[::1]:" + port, "http://[::1]:" + port, "application/json", 200},
		{"rebound name", "evil.example:" + port, "http://evil.example:" + port, "application/json", 403},
		{"rebound name without origin", "evil.example:" + port, "", "application/json", 403},
		{"name that looks local", "localhost.evil.example:" + port, "", "application/json", 403},
		{"another address", "192.0.2.1:" + port, "", "application/json", 403},
		{"another origin", addr, "http://evil.example", "application/json", 403},
		{"origin of another port", addr, "http://127.0.0.1:1", "application/json", 403},
		{"sandboxed page", addr, "null", "application/json", 403},
		{"a form", addr, "", "application/x-www-form-urlencoded", 415},
		{"a form's text", addr, "", "text/plain", 415},
		{"nothing said", addr, "", "", 415},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest("POST", "http://"+addr+"/v1/echo", strings.NewReader(`{"word":"x"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = tc.host
			if tc.origin != "" {
				req.Header.Set("Origin", tc.origin)
			}
			if tc.kind != "" {
				req.Header.Set("Content-Type", tc.kind)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != tc.status {
				t.Errorf("got %d %s, want %d", resp.StatusCode, body, tc.status)
			}
		})
	}
}

// TestNodeOnTheNetworkIsCalledByAnyName: its password is what keeps others out.
func TestNodeOnTheNetworkIsCalledByAnyName(t *testing.T) {
	h := hostsOf(&net.TCPAddr{IP: net.IPv4zero, Port: 9180})
	for origin, ok := range map[string]bool{"": true, "http://node-7.example:9180": true, "http://evil.example": false} {
		r := &http.Request{Host: "node-7.example:9180", Header: http.Header{}}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if err := h.check(r); (err == nil) != ok {
			t.Errorf("origin %q: %v", origin, err)
		}
	}
}

// TestConnectionsAreBounded: one more than may be waits until one is closed.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := boundListener(l, 1)
	accepted := make(chan net.Conn)
	ended := make(chan error)
	go func() {
		for {
			c, err := b.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	var clients []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	first := <-accepted
	wants := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.waiting
	}
	for !wants() {
		select {
		case <-accepted:
			t.Fatal("a second connection was accepted")
		default:
			runtime.Gosched()
		}
	}
	if n := b.open.Load(); n != 1 {
		t.Fatalf("%d connections open", n)
	}
	first.Close()
	first.Close() // gives its place back once
	second := <-accepted
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	second.Close()
	if n := b.open.Load(); n != 0 || len(clients) != 2 {
		t.Fatalf("%d connections open", n)
	}
}

// TestIdleConnectionsMakeRoom: clients that forgot to close theirs keep nobody out.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Listener: l, Gatherer: prometheus.NewRegistry(), Health: &health{ready: Readiness{Ready: true}}, MaxConnections: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	var forgotten []*Client
	for range 20 {
		c := NewClient(l.Addr().String(), "")
		forgotten = append(forgotten, c)
		if _, err := Get[Readiness](context.Background(), c, "/readyz"); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.listener.open.Load(); n > 3 {
		t.Errorf("%d connections open", n)
	}
	for _, c := range forgotten {
		c.Close()
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if n := s.listener.open.Load(); n != 0 {
		t.Errorf("%d connections open after the end", n)
	}
}

// TestClientNamesWhatDoesNotAnswer and says so when something else than a node does.
func TestClientNamesWhatDoesNotAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if nc, err := l.Accept(); err == nil {
			_, _ = nc.Read(make([]byte, 4096))
			_, _ = io.WriteString(nc, "-ERR wrong number of arguments\r\n")
			_ = nc.Close()
		}
	}()
	c := NewClient(addr, "")
	defer c.Close()
	if _, err := Get[Readiness](t.Context(), c, "/readyz"); err == nil || !strings.Contains(err.Error(), addr+" is no node's admin address") {
		t.Errorf("another server: %v", err)
	}
	<-served
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Get[Readiness](t.Context(), c, "/readyz"); err == nil || !strings.Contains(err.Error(), addr+" (is it running") || strings.Contains(err.Error(), "Get ") {
		t.Errorf("nobody: %v", err)
	}
}
