package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"replicanode/peer/peerpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every batch with an ack of its last decree, until the stream ends.
type echo struct{ panicOn uint64 }

func (e echo) Duplicate(stream DuplicateStream) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		last := req.GetBatch().GetLast()
		if e.panicOn != 0 && last == e.panicOn {
			panic("told to")
		}
		ack := &peerpb.DuplicateResponse_Ack{Ack: &peerpb.Ack{Confirmed: last}}
		if err := stream.Send(&peerpb.DuplicateResponse{Message: ack}); err != nil {
			return err
		}
	}
}

// waits holds its stream until the context ends.
type waits struct{ entered chan struct{} }

func (w waits) Duplicate(stream DuplicateStream) error {
	close(w.entered)
	<-stream.Context().Done()
	return context.Cause(stream.Context())
}

func startServer(t *testing.T, o ServerOptions) *Server {
	t.Helper()
	if o.Listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.Listener = l
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServer(t, s) })
	return s
}

func stopServer(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func newClient(t *testing.T, o ClientOptions) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close client: %v", err)
		}
	})
	return c
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func batch(last uint64, data []byte) *peerpb.DuplicateRequest {
	return &peerpb.DuplicateRequest{Message: &peerpb.DuplicateRequest_Batch{Batch: &peerpb.Batch{Last: last, Data: data}}}
}

func TestDescribe(t *testing.T) {
	want := Identity{ClusterID: 1<<63 + 5, NodeID: 7, Partitions: 16, Version: "v1"}
	s := startServer(t, ServerOptions{Identity: want})
	got, err := newClient(t, ClientOptions{}).Describe(t.Context(), s.Addr().String())
	if err != nil || got != want {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestStreamCarriesMessagesBothWays(t *testing.T) {
	s := startServer(t, ServerOptions{Handlers: Handlers{Duplication: echo{}}})
	stream, err := newClient(t, ClientOptions{}).Duplicate(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 100; i++ {
		if err := stream.Send(batch(i, bytes.Repeat([]byte{1}, 1<<14))); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || resp.GetAck().GetConfirmed() != i {
			t.Fatalf("batch %d: %v, %v", i, resp, err)
		}
	}
}

func TestPanicEndsOnlyItsStream(t *testing.T) {
	s := startServer(t, ServerOptions{Handlers: Handlers{Duplication: echo{panicOn: 13}}})
	c := newClient(t, ClientOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	other, err := c.Duplicate(ctx, s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	bad, err := c.Duplicate(ctx, s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Send(batch(13, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Recv(); status.Code(err) != codes.Internal {
		t.Fatalf("got %v, want status Internal", err)
	}
	if err := other.Send(batch(1, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Recv(); err != nil {
		t.Fatalf("the other stream broke: %v", err)
	}
	if got := counted(t, s.metrics.panics); got != 1 {
		t.Fatalf("counted %v panics, want 1", got)
	}
}

func TestMessageBeyondLimitIsRefused(t *testing.T) {
	s := startServer(t, ServerOptions{MaxMessageBytes: 4096, Handlers: Handlers{Duplication: echo{}}})
	stream, err := newClient(t, ClientOptions{}).Duplicate(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(batch(1, make([]byte, 8192))); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("got %v, want status ResourceExhausted", err)
	}
}

func TestGarbageOnTheSocketHarmsNobody(t *testing.T) {
	s := startServer(t, ServerOptions{HandshakeTimeout: 100 * time.Millisecond, Handlers: Handlers{Duplication: echo{}}})
	for _, garbage := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 1<<16), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 100)} {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(garbage)); err == nil && garbage != "" {
			// The server answers and closes; a reset while it does so is as good.
			_, _ = io.Copy(io.Discard, conn)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := newClient(t, ClientOptions{}).Describe(t.Context(), s.Addr().String()); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsBeyondLimitAreClosed(t *testing.T) {
	s := startServer(t, ServerOptions{MaxConnections: 1, Handlers: Handlers{Duplication: echo{}}})
	first := newClient(t, ClientOptions{})
	stream, err := first.Duplicate(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	second := newClient(t, ClientOptions{})
	if _, err := second.Describe(t.Context(), s.Addr().String()); status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v, want status Unavailable", err)
	}
	if err := stream.Send(batch(1, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatalf("the first connection suffered: %v", err)
	}
	if counted(t, s.metrics.rejected) < 1 {
		t.Fatal("the rejected connection was not counted")
	}
}

func TestStopEndsStreamsThatWait(t *testing.T) {
	handler := waits{entered: make(chan struct{})}
	s := startServer(t, ServerOptions{Handlers: Handlers{Duplication: handler}})
	stream, err := newClient(t, ClientOptions{}).Duplicate(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	<-handler.entered
	stopServer(t, s)
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v, want status Unavailable", err)
	}
	stopServer(t, s)
	if err := s.Start(t.Context()); !errors.Is(err, ErrStarted) {
		t.Fatalf("start after stop: %v", err)
	}
}

// deaf does not heed the end of its stream.
type deaf struct{ entered, release chan struct{} }

func (d deaf) Duplicate(DuplicateStream) error {
	close(d.entered)
	<-d.release
	return nil
}

func TestStopLeavesAHandlerBehindThatDoesNotEnd(t *testing.T) {
	handler := deaf{entered: make(chan struct{}), release: make(chan struct{})}
	s := startServer(t, ServerOptions{Handlers: Handlers{Duplication: handler}})
	if _, err := newClient(t, ClientOptions{}).Duplicate(t.Context(), s.Addr().String()); err != nil {
		t.Fatal(err)
	}
	<-handler.entered
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("stop while a handler runs: %v", err)
		}
	}
	close(handler.release)
	stopServer(t, s)
}

func TestStopBeforeStartClosesTheListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerOptions{Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	stopServer(t, s)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("accept: %v", err)
	}
}

func TestClientFailsAtOnceAndRecoversAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, ClientOptions{})
	for range 3 {
		if _, err := c.Duplicate(t.Context(), address); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("got %v, want a refused connection", err)
		}
	}
	l, err = net.Listen("tcp", address)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	startServer(t, ServerOptions{Listener: l})
	if _, err := c.Describe(t.Context(), address); err != nil {
		t.Fatalf("the first call after the server came up failed: %v", err)
	}
}

func TestClientBoundsASilentDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newClient(t, ClientOptions{DialTimeout: 50 * time.Millisecond})
	if _, err := c.Describe(t.Context(), l.Addr().String()); err == nil {
		t.Fatal("a server that never answers was taken as connected")
	}
	if _, err := c.Describe(t.Context(), "no port"); !errors.Is(err, ErrAddress) {
		t.Fatalf("got %v, want ErrAddress", err)
	}
}

func TestClosedClient(t *testing.T) {
	s := startServer(t, ServerOptions{Handlers: Handlers{Duplication: echo{}}})
	c := newClient(t, ClientOptions{})
	stream, err := c.Duplicate(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Fatal("the stream outlived its client")
	}
	if _, err := c.Duplicate(t.Context(), s.Addr().String()); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, o := range map[string]ServerOptions{
		"Listener":        {},
		"MaxMessageBytes": {Listener: l, MaxMessageBytes: 10},
		"MaxConnections":  {Listener: l, MaxConnections: -1},
		"KeepaliveTime":   {Listener: l, KeepaliveTime: time.Second},
	} {
		if _, err := NewServer(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := NewClient(ClientOptions{DialTimeout: -1}); err == nil {
		t.Error("a negative DialTimeout was taken")
	}
	r := prometheus.NewRegistry()
	if _, err := NewServer(ServerOptions{Listener: l, Registerer: r}); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(ServerOptions{Listener: l, Registerer: r}); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

// TestErrorsOfCallsArePlain, and what programs look at is still there.
func TestErrorsOfCallsArePlain(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := gone.Addr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = newClient(t, ClientOptions{}).Duplicate(t.Context(), addr)
	if err == nil || err.Error() != "open duplication stream to "+addr+": dial tcp "+addr+": connect: connection refused" {
		t.Errorf("nobody there: %v", err)
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("code %v", status.Code(err))
	}
	for given, want := range map[error]string{
		status.Error(codes.Internal, ""): "Internal", io.ErrUnexpectedEOF: "unexpected EOF", status.Error(codes.Unavailable, "node is stopping"): "node is stopping",
	} {
		if got := Plain(given); got.Error() != want || !errors.Is(got, given) {
			t.Errorf("%v became %v", given, got)
		}
	}
	if Plain(nil) != nil {
		t.Error("no error became one")
	}
}
