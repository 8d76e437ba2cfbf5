package redis

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"replicanode/server/resp"
)

const (
	flushBytes  = 64 << 10 // replies are sent when there are so many bytes of them
	keepReplies = 64 << 10 // reply buffer an idle connection keeps
	chunkBytes  = 1 << 20  // what a client must take within WriteTimeout
)

// Closing a connection whose client still sends would make the kernel discard the last replies; so the rest of what it sends is read and
// dropped first, within these bounds.
const (
	lingerTime  = 100 * time.Millisecond
	lingerBytes = 1 << 20
)

// conn is one client. Its goroutine reads requests, executes or proposes them in order, waits for all of them at once, and replies.
type conn struct {
	server *Server
	nc     net.Conn
	rd     *resp.Reader
	out    resp.Reply
	id     int64
	remote string
	since  time.Time

	authed bool

	infoMu sync.Mutex // guards what other connections' CLIENT LIST reads
	name   string
	proto  int

	queue []*Op // commands whose replies are outstanding, in order
	free  []*Op
	// pending counts proposed ops that are not finished, plus one while the connection does not wait for them.
	pending  atomic.Int64
	wake     chan struct{}
	reserved atomic.Int64 // bytes of replies that ops hold or may come to hold
	dirty    []uint64     // a bit for each partition with proposed ops
	dirtied  bool
	partOf   []*Op

	began         time.Time // when the first command of this burst was taken up
	reads, writes uint32    // commands of this burst

	readDeadline  bool // a read deadline is set
	requestSince  time.Time
	writeDeadline time.Time
	bytesIn       int64
	heldOut       int  // what the budget knows of out
	closing       bool // no more commands: send what there is and end
	broken        bool // sending failed
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s, nc: nc, id: s.nextID.Add(1), since: time.Now(), proto: 2,
		wake:   make(chan struct{}, 1),
		authed: s.opts.Password == "",
	}
	if addr := nc.RemoteAddr(); addr != nil {
		c.remote = addr.String()
	}
	c.rd = resp.NewReader(nc, s.limits(c.authed), s.budget)
	c.pending.Store(1)
	return c
}

// limits are those of a client that has authenticated, or has not.
func (s *Server) limits(authed bool) resp.Limits {
	if authed {
		return s.opts.Limits
	}
	l := resp.BeforeAuth()
	l.MaxInlineBytes = min(l.MaxInlineBytes, s.opts.Limits.MaxInlineBytes)
	return l
}

// interrupt makes a connection that waits for requests end.
func (c *conn) interrupt() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) }

// serve runs the connection until its end.
func (c *conn) serve() {
	defer c.end()
	defer func() {
		if r := recover(); r != nil {
			c.closing, c.broken = true, true
			c.server.panicked(c, r, debug.Stack())
		}
	}()
	for !c.broken {
		args, ok, err := c.rd.Next()
		switch {
		case err != nil:
			c.settle()
			c.protocolError(err)
			c.flush()
			return
		case ok:
			c.dispatch(args)
			if len(c.queue) >= c.server.opts.MaxPipeline || c.closing {
				c.settle()
			}
			if len(c.out.Buf) >= flushBytes {
				c.flush()
			}
		default:
			c.settle()
			c.flush()
			c.measure()
			if c.broken || c.closing || !c.fill() {
				return
			}
		}
		if c.closing {
			c.flush()
			return
		}
	}
}

// end gives everything back. Ops under way refer to the connection's buffers, so they are waited for even after a panic.
func (c *conn) end() {
	c.wait()
	if c.closing || c.server.stopping.Load() {
		c.linger()
	}
	_ = c.nc.Close()
	c.countReceived()
	c.rd.Close()
	c.server.budget.Take(-c.heldOut)
	c.server.leave(c)
}

// linger reads what the client still sends until it closes too.
func (c *conn) linger() {
	tcp, ok := c.nc.(*net.TCPConn)
	if !ok || c.broken || tcp.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

// fill reads more requests. It reports false when the connection must end.
func (c *conn) fill() bool {
	c.setReadDeadline()
	err := c.rd.Fill()
	c.countReceived()
	if err == nil {
		return true
	}
	var bad *resp.ProtocolError
	var timeout net.Error
	switch {
	case errors.As(err, &bad):
		c.protocolError(err)
		c.flush()
	case errors.As(err, &timeout) && timeout.Timeout() && !c.server.stopping.Load():
		c.server.metrics.refused[refusedIdle].Inc()
		c.log("client timed out", slog.Bool("in_request", c.rd.Partial()))
	}
	return false
}

// setReadDeadline bounds the next read: a request that has begun must be complete within RequestTimeout, the next one must begin within
// IdleTimeout.
func (c *conn) setReadDeadline() {
	var deadline time.Time
	opts := &c.server.opts
	partial := c.rd.Partial()
	if !partial {
		c.requestSince = time.Time{}
	}
	switch {
	case partial && opts.RequestTimeout > 0:
		if c.requestSince.IsZero() {
			c.requestSince = time.Now()
		}
		deadline = c.requestSince.Add(opts.RequestTimeout)
	case opts.IdleTimeout > 0:
		deadline = time.Now().Add(opts.IdleTimeout)
	}
	if deadline.IsZero() && !c.readDeadline {
		return
	}
	c.readDeadline = !deadline.IsZero()
	_ = c.nc.SetReadDeadline(deadline)
	if c.server.stopping.Load() {
		c.interrupt()
	}
}

func (c *conn) countReceived() {
	n := c.rd.BytesRead()
	c.server.metrics.received.Add(n - c.bytesIn)
	c.bytesIn = n
}

// protocolError answers a request that cannot be read; the connection ends with it.
func (c *conn) protocolError(err error) {
	var bad *resp.ProtocolError
	if !errors.As(err, &bad) {
		return
	}
	if bad.Kind == resp.NoMemory {
		c.server.metrics.refused[refusedBuffers].Inc()
	}
	c.server.metrics.protocol[bad.Kind].Inc()
	c.log("protocol error", slog.String("kind", bad.Kind.String()))
	c.out.Error(bad.Text)
	c.closing = true
}

func (c *conn) log(event string, attrs ...any) {
	c.server.opts.Logger.With(slog.Int64("client", c.id), slog.String("remote", c.remote)).Info(event, attrs...)
}

// wait returns when everything the connection proposed is finished.
func (c *conn) wait() {
	if c.pending.Add(-1) != 0 {
		<-c.wake
	}
	c.pending.Store(1)
	if c.dirtied {
		clear(c.dirty)
		c.dirtied = false
	}
}

// settle waits for all outstanding commands and appends their replies.
func (c *conn) settle() {
	if len(c.queue) == 0 {
		return
	}
	c.wait()
	for i, o := range c.queue {
		if !c.broken {
			if o.unread() {
				c.readAgain(i)
			}
			o.emit(&c.out)
			if len(c.out.Buf) >= flushBytes {
				c.flush()
			}
		}
		if o.panicked {
			c.closing = true
		}
		c.recycle(o)
		c.queue[i] = nil
	}
	c.queue = c.queue[:0]
}

// readAgain executes a read on a snapshot that the log could not take for lack of space: reads go on without it. Everything the
// connection proposed is finished, so the snapshot has what came before the read; when it has a later write to the partition too, the
// read fails rather than see that.
func (c *conn) readAgain(i int) {
	o := c.queue[i]
	p := c.server.opts.Store.Route(o.key())
	for _, later := range c.queue[i+1:] {
		if later.wrote(p) {
			return
		}
	}
	o.own.Buf, o.err, o.failed = o.own.Buf[:0], nil, false
	c.readPart(o, p, c.server.opts.MaxReplyBytes)
}

// flush sends the replies collected. When the client does not take them, the connection is broken.
func (c *conn) flush() {
	if len(c.out.Buf) == 0 {
		return
	}
	if held := max(cap(c.out.Buf)-keepReplies, 0); held != c.heldOut {
		if !c.server.budget.Take(held - c.heldOut) {
			c.server.metrics.refused[refusedBuffers].Inc()
			c.log("no memory left for replies")
			c.broken = true
		} else {
			c.heldOut = held
		}
	}
	for rest := c.out.Buf; len(rest) > 0 && !c.broken; {
		n := min(len(rest), chunkBytes)
		c.send(rest[:n])
		rest = rest[n:]
	}
	c.out.Buf = c.out.Buf[:0]
	if c.heldOut > 0 {
		c.out.Buf = nil
		c.server.budget.Take(-c.heldOut)
		c.heldOut = 0
	}
}

func (c *conn) send(b []byte) {
	// Setting a deadline costs as much as parsing several commands, so one is good for a quarter of its time.
	now, timeout := time.Now(), c.server.opts.WriteTimeout
	if timeout > 0 && c.writeDeadline.Sub(now) < timeout*3/4 {
		c.writeDeadline = now.Add(timeout)
		_ = c.nc.SetWriteDeadline(c.writeDeadline)
	}
	n, err := c.nc.Write(b)
	c.server.metrics.sent.Add(int64(n))
	if err == nil {
		return
	}
	c.broken = true
	var timedOut net.Error
	if errors.As(err, &timedOut) && timedOut.Timeout() {
		c.server.metrics.refused[refusedSlow].Inc()
		c.log("client does not read its replies")
	}
}

// measure records how long the burst's commands took, together.
func (c *conn) measure() {
	if c.began.IsZero() {
		return
	}
	now := time.Now()
	took := now.Sub(c.began)
	if c.writes > 0 {
		c.server.metrics.writes.record(took, c.writes)
		c.server.writeLat.record(now, took, c.writes)
	}
	if c.reads > 0 {
		c.server.metrics.reads.record(took, c.reads)
	}
	c.server.metrics.executed.Add(int64(c.reads) + int64(c.writes))
	c.began, c.reads, c.writes = time.Time{}, 0, 0
}
