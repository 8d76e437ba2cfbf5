package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// ClosedOptions configures a closed-loop driver.
type ClosedOptions struct {
	// Addr is the server (host:port). Required.
	Addr string
	// Password is sent by AUTH; "" sends none.
	Password string
	// Clients is how many clients ask at the same time, 1 to 4096. Default 50.
	Clients int
	// Pipeline is how many requests a client sends before it waits for their answers, 1 to 1024. Default 1.
	Pipeline int
	// Requests is how many requests are made in all; 0 goes on until Duration or Stop.
	Requests uint64
	// Duration ends the load; 0 goes on until Requests or Stop.
	Duration time.Duration
	// Workload says what is sent.
	Workload Workload

	// sequential reads and writes keys in order, each once: preloading. Requests must equal the number of keys.
	sequential bool
	ledger     *Ledger
}

// EnsureDefaults fills the fields that are zero.
func (o *ClosedOptions) EnsureDefaults() {
	o.Clients = cmp.Or(o.Clients, 50)
	o.Pipeline = cmp.Or(o.Pipeline, 1)
	o.Workload.EnsureDefaults()
}

// Validate checks every field after EnsureDefaults.
func (o *ClosedOptions) Validate() error {
	switch {
	case o.Addr == "":
		return errors.New("addr is empty: must be host:port")
	case o.Clients < 1 || o.Clients > 4096:
		return fmt.Errorf("clients %d: must be between 1 and 4096", o.Clients)
	case o.Pipeline < 1 || o.Pipeline > 1024:
		return fmt.Errorf("pipeline %d: must be between 1 and 1024", o.Pipeline)
	case o.Duration < 0:
		return fmt.Errorf("duration %v: must not be negative", o.Duration)
	}
	return o.Workload.Validate()
}

// Closed is a running closed-loop driver. Take and Stop may be called from any goroutine.
type Closed struct {
	opts    ClosedOptions
	clients []*closedClient
	recs    []*recorder
	wg      sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}

	takeMu sync.Mutex
	taken  time.Time
}

// StartClosed connects all clients, within ctx, and lets them go. Stop must be called, also after Done.
func StartClosed(ctx context.Context, o ClosedOptions) (*Closed, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Requests > 0 {
		o.Clients = int(min(uint64(o.Clients), o.Requests))
	}
	d := &Closed{opts: o, recs: newRecorders(o.Clients), done: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var firstKey uint64
	for i := range o.Clients {
		c, err := d.newClient(ctx, i)
		if err != nil {
			d.cancel()
			d.closeConns()
			return nil, err
		}
		c.nextKey = uint32(firstKey)
		firstKey += c.quota
		d.clients = append(d.clients, c)
	}
	d.taken = time.Now()
	if o.Duration > 0 {
		timer := time.AfterFunc(o.Duration, d.cancel)
		context.AfterFunc(d.ctx, func() { timer.Stop() })
	}
	for _, c := range d.clients {
		d.wg.Go(func() { c.run(d.ctx) })
	}
	go func() {
		d.wg.Wait()
		close(d.done)
	}()
	return d, nil
}

func (d *Closed) newClient(ctx context.Context, i int) (*closedClient, error) {
	gen, err := newGenerator(d.opts.Workload, uint64(i), d.opts.ledger)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, d.opts.Addr, d.opts.Password)
	if err != nil {
		return nil, err
	}
	n := uint64(d.opts.Clients)
	c := &closedClient{opts: &d.opts, conn: conn, gen: gen, rec: d.recs[i%len(d.recs)], ops: make([]op, 0, d.opts.Pipeline)}
	if c.quota = d.opts.Requests / n; uint64(i) < d.opts.Requests%n {
		c.quota++
	}
	return c, nil
}

func (d *Closed) closeConns() {
	for _, c := range d.clients {
		_ = c.conn.Close()
	}
}

// Done is closed when all clients have ended.
func (d *Closed) Done() <-chan struct{} { return d.done }

// Take returns what happened since the last Take, or since the start.
func (d *Closed) Take() Stats {
	d.takeMu.Lock()
	defer d.takeMu.Unlock()
	now := time.Now()
	elapsed := now.Sub(d.taken)
	d.taken = now
	return collect(d.recs, elapsed)
}

// Stop lets every client finish the batch it waits for until ctx ends, and closes the connections. It returns why the first
// client failed, if one did. It may be called more than once.
func (d *Closed) Stop(ctx context.Context) error {
	d.cancel()
	select {
	case <-d.done:
	case <-ctx.Done():
		for _, c := range d.clients {
			_ = c.conn.SetDeadline(time.Unix(1, 0))
		}
		<-d.done
	}
	d.closeConns()
	for _, c := range d.clients {
		if c.lost != nil {
			return fmt.Errorf("connection to %s lost: %w", d.opts.Addr, c.lost)
		}
	}
	return nil
}

// closedClient is one client: it sends a batch and waits for all of its answers.
type closedClient struct {
	opts    *ClosedOptions
	conn    net.Conn
	gen     *generator
	rec     *recorder
	quota   uint64 // requests still to make, when opts.Requests is set
	nextKey uint32 // preloading
	ops     []op
	out     []byte
	lost    error
}

func (c *closedClient) run(ctx context.Context) {
	in := newReplies(c.conn)
	for ctx.Err() == nil {
		n := uint64(c.opts.Pipeline)
		if c.opts.Requests > 0 {
			n = min(n, c.quota)
			c.quota -= n
		}
		if n == 0 {
			return
		}
		c.draw(int(n))
		if err := c.batch(in); err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("closed by the server")
			}
			c.lost = err
			return
		}
	}
}

func (c *closedClient) draw(n int) {
	c.ops, c.out = c.ops[:0], c.out[:0]
	for range n {
		var o op
		if c.opts.sequential {
			o = op{key: c.nextKey, seq: 1}
			if l := c.opts.ledger; l != nil {
				o.seq = l.issue(o.key)
			}
			c.nextKey++
		} else {
			o = c.gen.next()
		}
		c.ops = append(c.ops, o)
		c.out = c.gen.codec.append(c.out, o)
	}
}

// batch sends what was drawn and records the answers.
func (c *closedClient) batch(in *replies) error {
	begun := time.Now()
	finish, err := c.write()
	for left := c.ops; len(left) > 0; {
		if err == nil {
			err = in.fill()
		}
		took := time.Since(begun)
		c.rec.mu.Lock()
		for err == nil && len(left) > 0 {
			var r reply
			var ok bool
			if r, ok, err = in.next(); err != nil || !ok {
				break
			}
			c.settle(left[0], r, took)
			left = left[1:]
		}
		if err != nil {
			for _, o := range left {
				c.rec.unanswered(o.read, took)
				c.opts.ledger.disown(o)
			}
		}
		c.rec.mu.Unlock()
		if err != nil {
			break
		}
	}
	return errors.Join(err, finish(err))
}

// socketBytes is what a connection's two socket buffers take in any case.
const socketBytes = 16 << 10

// write sends the batch. A large one is sent beside the reading of its answers, since a server that waits for its answers to be
// read may not read requests. finish ends that, at once if the reading failed, and says how it went.
func (c *closedClient) write() (finish func(failed error) error, err error) {
	if len(c.out) <= socketBytes {
		_, err := c.conn.Write(c.out)
		return func(error) error { return nil }, err
	}
	written := make(chan error, 1)
	go func() {
		_, err := c.conn.Write(c.out)
		written <- err
	}()
	return func(failed error) error {
		if failed != nil {
			_ = c.conn.SetDeadline(time.Unix(1, 0))
			<-written
			return nil
		}
		return <-written
	}, nil
}

func (c *closedClient) settle(o op, r reply, took time.Duration) {
	if r.kind == '-' {
		c.rec.failed(string(r.text))
		c.opts.ledger.disown(o)
		return
	}
	c.rec.answered(o.read, took)
	if l := c.opts.ledger; l != nil && !o.read {
		l.acknowledge(o.key, o.seq)
	}
}
