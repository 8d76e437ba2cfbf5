package admin

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// boundedListener accepts so many connections at once; further ones wait until one is closed.
type boundedListener struct {
	net.Listener
	slots  chan struct{}
	open   atomic.Int64
	closed chan struct{}
	once   sync.Once
}

func boundListener(l net.Listener, most int) *boundedListener {
	return &boundedListener{Listener: l, slots: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	l.open.Add(1)
	return &boundedConn{Conn: c, release: func() { l.open.Add(-1); <-l.slots }}, nil
}

// Close implements net.Listener. It ends an Accept that waits for a connection to close, too.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *boundedListener) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "replicanode", Subsystem: "admin", Name: "connections", Help: "Open connections of operators.",
	}, func() float64 { return float64(l.open.Load()) })
}

type boundedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.once.Do(c.release)
	return c.Conn.Close()
}
