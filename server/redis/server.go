package redis

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"replicanode/server/resp"
)

// Server serves Redis clients. Its methods are safe for concurrent use.
type Server struct {
	opts     Options
	table    *table
	metrics  *metrics
	budget   *resp.Budget
	password [sha256.Size]byte
	writeLat latencyWindow
	keys     keyCount
	started  time.Time

	// ctx ends when connections must no longer wait for anything.
	ctx    context.Context
	cancel context.CancelFunc

	ready    atomic.Bool // opts.Store and opts.WriteGate are there; they are written before and read after
	stopping atomic.Bool
	stop     chan struct{} // closed with stopping
	done     chan struct{} // closed when all goroutines ended
	wg       sync.WaitGroup
	nextID   atomic.Int64

	mu       sync.Mutex // guards what follows; no other lock is taken under it
	listener net.Listener
	conns    map[int64]*conn
}

// New returns a Server that does not listen yet.
func New(opts Options) (*Server, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opts:     opts,
		table:    newTable(),
		budget:   resp.NewBudget(opts.MaxBufferBytes),
		password: sha256.Sum256([]byte(opts.Password)),
		started:  time.Now(),
		stop:     make(chan struct{}),
		conns:    map[int64]*conn{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.ready.Store(opts.Store != nil)
	var err error
	if s.metrics, err = newMetrics(s, opts.Registerer); err != nil {
		return nil, err
	}
	return s, nil
}

// Start listens and returns; clients are served until Stop.
func (s *Server) Start(ctx context.Context) error {
	listener := s.opts.Listener
	if listener == nil {
		// An idle connection whose other end vanished is found by TCP keep-alives, which are on by default.
		var config net.ListenConfig
		var err error
		if listener, err = config.Listen(ctx, "tcp", s.opts.Addr); err != nil {
			return fmt.Errorf("listen for clients on %s: %w", s.opts.Addr, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() || s.listener != nil {
		_ = listener.Close()
		return errors.New("redis server: started twice, or after Stop")
	}
	s.listener = listener
	s.wg.Go(func() { s.accept(listener) })
	s.opts.Logger.Info("listening for clients", slog.String("address", listener.Addr().String()), slog.Int("max_clients", s.opts.MaxClients))
	return nil
}

// Open gives a server that was made without a store its store, and the gate of writes, which may be nil. It may be called once.
func (s *Server) Open(store Store, gate func(partition int) error) {
	s.opts.Store, s.opts.WriteGate = store, gate
	s.ready.Store(true)
}

// Addr is the address the server listens on; nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Stop accepts no more connections, lets commands that were received finish and their replies be sent, and closes all connections.
// When ctx ends first, connections are cut, and the error says so; commands the store never finishes may then still be waited
// for, and another Stop waits on. Stop may be called more than once.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	if s.stopping.CompareAndSwap(false, true) {
		close(s.stop)
		if s.listener != nil {
			_ = s.listener.Close()
		}
		for _, c := range s.conns {
			c.interrupt()
		}
		s.done = make(chan struct{})
		go func() {
			s.wg.Wait()
			s.cancel()
			close(s.done)
		}()
	}
	done := s.done
	s.mu.Unlock()

	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-done:
		return nil
	default:
	}
	s.cancel()
	s.mu.Lock()
	open := len(s.conns)
	for _, c := range s.conns {
		_ = c.nc.Close()
	}
	s.mu.Unlock()
	return fmt.Errorf("stop serving clients: %d connections cut: %w", open, ctx.Err())
}

// WriteP99 is the 99th percentile of the time that writes took, from their arrival to their reply, in the last 8 to 10 seconds, to
// within 13 %; 0 when there were none.
func (s *Server) WriteP99() time.Duration { return s.writeLat.quantile(time.Now(), 0.99) }

// clients is the number of open connections.
func (s *Server) clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Pauses between attempts to accept while the system refuses, for want of file descriptors for example.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

func (s *Server) accept(listener net.Listener) {
	pause := acceptPauseMin
	for {
		nc, err := listener.Accept()
		switch {
		case err == nil:
			pause = acceptPauseMin
			s.admit(nc)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		s.opts.Logger.Warn("cannot accept a connection", slog.Any("error", err), slog.Duration("pause", pause))
		select {
		case <-s.stop:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, acceptPauseMax)
	}
}

// admit serves a connection, or turns it away.
func (s *Server) admit(nc net.Conn) {
	s.metrics.connectionCount.Add(1)
	c := newConn(s, nc)
	s.mu.Lock()
	full := len(s.conns) >= s.opts.MaxClients
	stopping := s.stopping.Load()
	if !full && !stopping {
		s.conns[c.id] = c
		s.wg.Go(c.serve)
	}
	s.mu.Unlock()
	if stopping {
		_ = nc.Close()
		return
	}
	if full {
		s.metrics.refused[refusedClients].Inc()
		s.metrics.rejected.Add(1)
		s.opts.Logger.Debug("too many clients", slog.String("remote", nc.RemoteAddr().String()))
		// The socket's buffer is empty, so that this cannot block; were it otherwise, the deadline is past.
		_ = nc.SetWriteDeadline(time.Now().Add(acceptPauseMin))
		_, _ = nc.Write([]byte("-ERR max number of clients reached\r\n"))
		_ = nc.Close()
	}
}

// leave forgets a connection.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	delete(s.conns, c.id)
	s.mu.Unlock()
}

// panicked logs and counts a panic in a connection's code.
func (s *Server) panicked(c *conn, reason any, stack []byte) {
	s.metrics.panics.Inc()
	s.opts.Logger.Error("panic in a connection", slog.Int64("client", c.id), slog.String("remote", c.remote), slog.Any("panic", reason), slog.String("stack", string(stack)))
}
