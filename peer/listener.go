package peer

import (
	"net"
	"sync"
)

// limitListener closes connections beyond a limit as soon as they are accepted, so that whoever dials learns it at once and the
// connections that are served keep being served.
type limitListener struct {
	net.Listener
	limit   int
	metrics *serverMetrics

	mu   sync.Mutex
	open int
}

func newLimitListener(l net.Listener, limit int, metrics *serverMetrics) *limitListener {
	return &limitListener{Listener: l, limit: limit, metrics: metrics}
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.take() {
			return &limitedConn{Conn: conn, release: l.release}, nil
		}
		l.metrics.rejected.Inc()
		// The connection was never used: nothing can be lost by a failed close.
		_ = conn.Close()
	}
}

func (l *limitListener) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limit {
		return false
	}
	l.open++
	l.metrics.connections.Set(float64(l.open))
	return true
}

func (l *limitListener) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.metrics.connections.Set(float64(l.open))
}

// limitedConn gives its place back when it is closed, once.
type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}
