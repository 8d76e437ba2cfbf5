package load

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// sent is a request on its way.
type sent struct {
	op  op
	due time.Duration // since the driver started
}

// openConn is one connection of an open-loop driver. The sending goroutine owns out and the head of the ring, the reading
// goroutine the tail.
type openConn struct {
	tcp    *net.TCPConn
	raw    syscall.RawConn
	rec    *recorder
	ledger *Ledger

	out     []byte // encoded, not yet in the socket from outAt on
	outAt   int
	mostOut int // bytes of out that may wait for the socket before nothing more is pushed
	writeFn func(fd uintptr) bool
	wrote   int
	wroteE  error

	ring       []sent // power of two long; slots tail to head-1 are on their way
	head, tail atomic.Uint64
	broken     atomic.Bool // no more replies will come
	closing    atomic.Bool // the driver closes the connection itself
	lost       error       // why replies ended; set before the reading goroutine ends
}

func newOpenConn(tcp *net.TCPConn, o *OpenOptions, rec *recorder) (*openConn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	c := &openConn{
		tcp: tcp, raw: raw, rec: rec, ledger: o.Ledger, ring: make([]sent, 1<<bits.Len(uint(o.MaxInFlight-1))), mostOut: o.maxUnsent / o.Connections,
	}
	c.writeFn = func(fd uintptr) bool {
		for {
			c.wrote, c.wroteE = syscall.Write(int(fd), c.out[c.outAt:])
			if c.wroteE != syscall.EINTR {
				return true
			}
		}
	}
	return c, nil
}

type pushResult int

const (
	pushed pushResult = iota
	pushFull
	pushLost
)

// push encodes a request to be flushed.
func (c *openConn) push(codec *codec, o op, due time.Duration) pushResult {
	if c.broken.Load() {
		return pushLost
	}
	head := c.head.Load()
	if unsent := len(c.out) - c.outAt; unsent > 0 && unsent >= c.mostOut || head-c.tail.Load() >= uint64(len(c.ring)) {
		return pushFull
	}
	c.ring[head&uint64(len(c.ring)-1)] = sent{op: o, due: due}
	c.head.Store(head + 1)
	c.out = codec.append(c.out, o)
	return pushed
}

// flush writes what the socket takes without waiting.
func (c *openConn) flush() {
	if c.outAt == len(c.out) || c.broken.Load() {
		return
	}
	err := c.raw.Write(c.writeFn)
	if err == nil {
		err = c.wroteE
	}
	switch {
	case err == nil:
		c.outAt += c.wrote
	case errors.Is(err, syscall.EAGAIN):
		return
	default:
		// The reading side sees the end of the connection too, and reports it.
		_ = c.tcp.CloseRead()
		return
	}
	if c.outAt == len(c.out) {
		c.out, c.outAt = c.out[:0], 0
	} else if c.outAt > len(c.out)/2 {
		c.out, c.outAt = c.out[:copy(c.out, c.out[c.outAt:])], 0
	}
}

// waiting says whether replies are still to come.
func (c *openConn) waiting() bool { return !c.broken.Load() && c.head.Load() != c.tail.Load() }

// read records replies until the connection ends.
func (c *openConn) read(started time.Time) {
	in := newReplies(c.tcp)
	var err error
	for err == nil {
		if err = in.fill(); err == nil {
			err = c.record(in, time.Since(started))
		}
	}
	if !c.closing.Load() {
		if errors.Is(err, io.EOF) {
			err = errors.New("closed by the server")
		}
		c.lost = err
	}
	c.broken.Store(true)
	c.abandon(time.Since(started))
}

// record takes all whole replies that have arrived.
func (c *openConn) record(in *replies, now time.Duration) error {
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	for {
		r, ok, err := in.next()
		if err != nil || !ok {
			return err
		}
		tail := c.tail.Load()
		if tail == c.head.Load() {
			return fmt.Errorf("%w: a reply to no request", errProtocol)
		}
		s := c.ring[tail&uint64(len(c.ring)-1)]
		c.tail.Store(tail + 1)
		c.settle(s, r, now)
	}
}

func (c *openConn) settle(s sent, r reply, now time.Duration) {
	if r.kind == '-' {
		c.rec.failed(string(r.text))
		c.ledger.disown(s.op)
		return
	}
	c.rec.answered(s.op.read, now-s.due)
	if c.ledger != nil && !s.op.read {
		c.ledger.acknowledge(s.op.key, s.op.seq)
	}
}

// abandon counts the requests that will never be answered.
func (c *openConn) abandon(now time.Duration) {
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	tail, head := c.tail.Load(), c.head.Load()
	for ; tail < head; tail++ {
		s := c.ring[tail&uint64(len(c.ring)-1)]
		c.rec.unanswered(s.op.read, now-s.due)
		c.ledger.disown(s.op)
	}
	c.tail.Store(tail)
}
