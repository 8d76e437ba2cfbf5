package admin

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// boundedListener has so many connections open at once. A further one takes the place of the connection that has been idle for the
// longest, and waits while none is.
type boundedListener struct {
	net.Listener
	slots  chan struct{}
	open   atomic.Int64
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	idle    list.List // *boundedConn, the longest idle first
	waiting bool      // Accept wants the place of the next one that becomes idle
}

func boundListener(l net.Listener, most int) *boundedListener {
	return &boundedListener{Listener: l, slots: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
	default:
		l.closeIdle()
		select {
		case l.slots <- struct{}{}:
			l.stopWaiting()
		case <-l.closed:
			_ = nc.Close()
			return nil, net.ErrClosed
		}
	}
	l.open.Add(1)
	return &boundedConn{Conn: nc, listener: l}, nil
}

// Close implements net.Listener. It ends an Accept that waits for a connection to close, too.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// state is told by the HTTP server what a connection does.
func (l *boundedListener) state(nc net.Conn, s http.ConnState) {
	c, ok := nc.(*boundedConn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case s == http.StateIdle && l.waiting:
		l.waiting = false
		_ = c.Close()
	case s == http.StateIdle && c.place == nil:
		c.place = l.idle.PushBack(c)
	case s != http.StateIdle && c.place != nil:
		l.idle.Remove(c.place)
		c.place = nil
	}
}

// closeIdle closes the connection that has been idle for the longest, or the next that becomes idle.
func (l *boundedListener) closeIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	front := l.idle.Front()
	if front == nil {
		l.waiting = true
		return
	}
	if oldest, ok := l.idle.Remove(front).(*boundedConn); ok {
		oldest.place = nil
		_ = oldest.Close()
	}
}

func (l *boundedListener) stopWaiting() {
	l.mu.Lock()
	l.waiting = false
	l.mu.Unlock()
}

func (l *boundedListener) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "replicanode", Subsystem: "admin", Name: "connections", Help: "Open connections of operators.",
	}, func() float64 { return float64(l.open.Load()) })
}

type boundedConn struct {
	net.Conn
	listener *boundedListener
	once     sync.Once
	place    *list.Element // in listener.idle, guarded by its mu; nil while it is not idle
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.once.Do(func() {
		c.listener.open.Add(-1)
		<-c.listener.slots
	})
	return c.Conn.Close()
}
