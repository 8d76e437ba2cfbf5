package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"replicanode/peer/peerpb"
)

// ErrStarted is returned by Start when the server has been started before.
var ErrStarted = errors.New("peer server was started before")

// DuplicateStream is the receiver's end of a duplication stream. Its context ends when the stream breaks or the server stops.
type DuplicateStream = grpc.BidiStreamingServer[peerpb.DuplicateRequest, peerpb.DuplicateResponse]

// DuplicationHandler serves the Duplication service.
type DuplicationHandler interface {
	// Duplicate owns one stream until it returns. It must return soon after the stream's context ends. A gRPC status error is
	// sent as it is, any other becomes status Unknown.
	Duplicate(stream DuplicateStream) error
}

// Handlers are the services of a node that other rooms implement. A nil handler's service answers Unimplemented.
type Handlers struct {
	Duplication DuplicationHandler
}

// Server serves one node's peers. Its methods may be called from any goroutine.
type Server struct {
	peerpb.UnimplementedNodeServer

	o        ServerOptions
	grpc     *grpc.Server
	metrics  *serverMetrics
	stopping context.Context
	stop     context.CancelFunc

	mu      sync.Mutex
	started bool
	ending  bool
	done    chan struct{} // closed when Serve has returned

	force sync.Once
	// hurry is closed when a Stop has run out of time, ended when nothing of the server runs any more.
	hurry, ended chan struct{}
}

// NewServer checks the options and prepares a server; nothing runs before Start.
func NewServer(o ServerOptions) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	metrics, err := newServerMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, metrics: metrics, done: make(chan struct{}), hurry: make(chan struct{}), ended: make(chan struct{})}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(s.grpcOptions()...)
	peerpb.RegisterNodeServer(s.grpc, s)
	if o.Handlers.Duplication != nil {
		peerpb.RegisterDuplicationServer(s.grpc, duplicationService{handler: o.Handlers.Duplication})
	}
	return s, nil
}

func (s *Server) grpcOptions() []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.o.MaxMessageBytes),
		grpc.MaxConcurrentStreams(s.o.MaxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(s.o.HandshakeTimeout),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connectionWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: s.o.KeepaliveTime, Timeout: s.o.KeepaliveTimeout}),
		// Half of what clients may use: two pings that the network pushed together are no offence.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minKeepaliveTime / 2, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.guardCall),
		grpc.StreamInterceptor(s.guardStream),
		grpc.WaitForHandlers(true),
	}
	if s.o.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.o.TLS)))
	}
	return options
}

// Start begins to serve and returns. The context only bounds the start itself.
func (s *Server) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start peer server: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.stopping.Err() != nil {
		return ErrStarted
	}
	s.started = true
	listener := newLimitListener(s.o.Listener, s.o.MaxConnections, s.metrics)
	go func() {
		defer close(s.done)
		if err := s.grpc.Serve(listener); err != nil && s.stopping.Err() == nil {
			s.o.Logger.Error("peer server stopped serving", "error", err)
		}
	}()
	s.o.Logger.Info("peer server listens", "address", s.o.Listener.Addr().String(), "tls", s.o.TLS != nil)
	return nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.o.Listener.Addr() }

// Stop takes no more calls, ends the streams, and waits for their handlers. When ctx ends first it closes the connections and
// returns ctx's error; handlers that do not heed the end of their stream are left behind, and another Stop waits for them. It may be
// called before Start.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	started, first := s.started, !s.ending
	s.ending = true
	s.stop()
	s.mu.Unlock()
	if !started {
		s.grpc.Stop()
		if err := s.o.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("close peer listener: %w", err)
		}
		return nil
	}
	if first {
		go s.end()
	}
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		s.force.Do(func() { close(s.hurry) })
		return fmt.Errorf("stop peer server: %w", ctx.Err())
	}
}

// end stops the server, first with patience, and returns when its last goroutine has ended.
func (s *Server) end() {
	defer close(s.ended)
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	select {
	case <-graceful:
	case <-s.hurry:
		s.grpc.Stop()
		<-graceful
	}
	<-s.done
}

// Describe implements the Node service.
func (s *Server) Describe(context.Context, *peerpb.DescribeRequest) (*peerpb.DescribeResponse, error) {
	id := s.o.Identity
	return &peerpb.DescribeResponse{ClusterId: id.ClusterID, NodeId: id.NodeID, Partitions: id.Partitions, Version: id.Version}, nil
}

// guardCall keeps a handler's panic inside its call.
func (s *Server) guardCall(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer s.recoverCall(info.FullMethod, &err)
	return next(ctx, req)
}

// guardStream keeps a handler's panic inside its stream, and ends the stream's context when the server stops.
func (s *Server) guardStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.recoverCall(info.FullMethod, &err)
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	unhook := context.AfterFunc(s.stopping, func() { cancel(status.Error(codes.Unavailable, "node is stopping")) })
	defer unhook()
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	return next(srv, stoppableStream{ServerStream: stream, ctx: ctx})
}

func (s *Server) recoverCall(method string, err *error) {
	if reason := recover(); reason != nil {
		s.metrics.panics.Inc()
		s.o.Logger.Error("peer handler panicked", "method", method, "panic", fmt.Sprint(reason), slog.String("stack", string(debug.Stack())))
		*err = status.Error(codes.Internal, "handler failed")
	}
}

// stoppableStream is a stream whose context also ends when the server stops.
type stoppableStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stoppableStream) Context() context.Context { return s.ctx }

// duplicationService binds a DuplicationHandler to the generated service.
type duplicationService struct {
	peerpb.UnimplementedDuplicationServer
	handler DuplicationHandler
}

func (d duplicationService) Duplicate(stream DuplicateStream) error {
	return d.handler.Duplicate(stream)
}
