package admin

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// pipeListener hands out connections in memory, which know virtual time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// TestClientThatTakesNoAnswerMakesRoom, while one that records a profile may take longer.
func TestClientThatTakesNoAnswerMakesRoom(t *testing.T) {
	for path, most := range map[string]time.Duration{"/readyz": answerTime, "/debug/pprof/cmdline": profileTime} {
		synctest.Test(t, func(t *testing.T) {
			l := newPipeListener()
			s, err := New(Options{Listener: l, Gatherer: prometheus.NewRegistry(), Health: &health{ready: Readiness{Ready: true}}, MaxConnections: 1})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			c := l.dial()
			defer c.Close()
			if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(most - time.Second)
			synctest.Wait()
			if n := s.listener.open.Load(); n != 1 {
				t.Errorf("%s: %d connections open before the time is over", path, n)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if n := s.listener.open.Load(); n != 0 {
				t.Errorf("%s: %d connections open after it", path, n)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := s.Stop(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
