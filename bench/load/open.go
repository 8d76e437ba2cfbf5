package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// OpenOptions configures an open-loop driver.
type OpenOptions struct {
	// Addr is the server (host:port). Required.
	Addr string
	// Password is sent by AUTH; "" sends none.
	Password string
	// Connections is how many connections share the load, 1 to 4096. Default 8.
	Connections int
	// Rate is how many requests are due per second, above 0 and at most MaxRate. Required.
	Rate float64
	// Arrivals is the kind of schedule. Default Poisson.
	Arrivals Arrivals
	// Tick is how often due requests are sent, 100 µs to 10 ms. Default 500 µs.
	Tick time.Duration
	// MaxInFlight bounds the unanswered requests of one connection, 1 to 2^20. Default 32,768.
	MaxInFlight int
	// Duration ends the schedule; 0 goes on until Stop.
	Duration time.Duration
	// Workload says what is sent.
	Workload Workload
	// Ledger remembers acknowledged writes; nil keeps none. It must have as many keys as the workload, and the values must
	// be at least MinStampedValue long.
	Ledger *Ledger

	maxUnsent int // bytes that wait for the sockets, of all connections together
}

// defaultUnsent is far more than waits at a server that keeps up, and less than a machine has.
const defaultUnsent = 256 << 20

// EnsureDefaults fills the fields that are zero.
func (o *OpenOptions) EnsureDefaults() {
	o.Connections = cmp.Or(o.Connections, 8)
	o.Arrivals = cmp.Or(o.Arrivals, Poisson)
	o.Tick = cmp.Or(o.Tick, 500*time.Microsecond)
	o.MaxInFlight = cmp.Or(o.MaxInFlight, 1<<15)
	o.maxUnsent = cmp.Or(o.maxUnsent, defaultUnsent)
	o.Workload.EnsureDefaults()
}

// Validate checks every field after EnsureDefaults.
func (o *OpenOptions) Validate() error {
	switch {
	case o.Addr == "":
		return errors.New("addr is empty: must be host:port")
	case o.Connections < 1 || o.Connections > 4096:
		return fmt.Errorf("connections %d: must be between 1 and 4096", o.Connections)
	case o.Tick < 100*time.Microsecond || o.Tick > 10*time.Millisecond:
		return fmt.Errorf("tick %v: must be between 100µs and 10ms", o.Tick)
	case o.MaxInFlight < 1 || o.MaxInFlight > 1<<20:
		return fmt.Errorf("max in flight %d: must be between 1 and %d", o.MaxInFlight, 1<<20)
	case o.Duration < 0:
		return fmt.Errorf("duration %v: must not be negative", o.Duration)
	case o.Ledger != nil && len(o.Ledger.issued) != int(o.Workload.Keys):
		return fmt.Errorf("ledger of %d keys for a workload of %d", len(o.Ledger.issued), o.Workload.Keys)
	case o.Ledger != nil && o.Workload.ValueSize < MinStampedValue:
		return fmt.Errorf("value-size %d: must be at least %d to keep a ledger", o.Workload.ValueSize, MinStampedValue)
	}
	return o.Workload.Validate()
}

// Open is a running open-loop driver. Take and Stop may be called from any goroutine.
type Open struct {
	opts     OpenOptions
	schedule *schedule
	gen      *generator
	conns    []*openConn
	sender   *recorder
	readerRs []*recorder
	started  time.Time
	ticker   *ticker
	stopping atomic.Bool
	stopOnce sync.Once
	senders  sync.WaitGroup
	readers  sync.WaitGroup
	done     chan struct{} // closed when the schedule ended and everything was answered, or Stop was called

	takeMu sync.Mutex
	taken  time.Time
}

// StartOpen connects, within ctx, and starts the schedule. Stop must be called, also after Done.
func StartOpen(ctx context.Context, o OpenOptions) (*Open, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	d := &Open{opts: o, sender: newRecorder(), done: make(chan struct{})}
	var err error
	if d.schedule, err = newSchedule(o.Arrivals, o.Rate, o.Workload.Seed); err != nil {
		return nil, err
	}
	if d.gen, err = newGenerator(o.Workload, 0, o.Ledger); err != nil {
		return nil, err
	}
	d.readerRs = newRecorders(o.Connections)
	for i := range o.Connections {
		tcp, err := dial(ctx, o.Addr, o.Password)
		if err != nil {
			d.closeConns()
			return nil, err
		}
		c, err := newOpenConn(tcp, &o, d.readerRs[i%len(d.readerRs)])
		if err != nil {
			_ = tcp.Close()
			d.closeConns()
			return nil, err
		}
		d.conns = append(d.conns, c)
	}
	if d.ticker, err = newTicker(o.Tick); err != nil {
		d.closeConns()
		return nil, err
	}
	d.started = time.Now()
	d.taken = d.started
	for _, c := range d.conns {
		d.readers.Go(func() { c.read(d.started) })
	}
	d.senders.Go(d.send)
	return d, nil
}

func (d *Open) closeConns() {
	for _, c := range d.conns {
		_ = c.tcp.Close()
	}
}

// send makes every request that is due, at every tick, until the schedule ends and everything is answered, or Stop.
func (d *Open) send() {
	defer close(d.done)
	next := d.schedule.next()
	var pending *op // drawn, but its connection is at its bound
	defer func() {
		if pending != nil {
			d.opts.Ledger.disown(*pending)
		}
	}()
	for {
		now := time.Since(d.started)
		full := false
		d.sender.mu.Lock()
		for next <= now && !full && !d.ended(next) {
			if pending == nil {
				o := d.gen.next()
				pending = &o
			}
			c := d.conns[int(pending.key)%len(d.conns)]
			switch c.push(&d.gen.codec, *pending, next) {
			case pushFull:
				full = true
				continue
			case pushLost:
				d.sender.failed("not sent: the connection is lost")
				d.opts.Ledger.disown(*pending)
			case pushed:
				Record(d.sender.stats.SendDelay, now-next, 1)
			}
			pending, next = nil, d.schedule.next()
		}
		d.sender.mu.Unlock()
		open := false
		for _, c := range d.conns {
			c.flush()
			open = open || c.waiting()
		}
		if !open && d.ended(next) {
			return
		}
		if d.ticker.wait() != nil {
			return
		}
	}
}

// ended says whether the request due at next is beyond the end of the schedule.
func (d *Open) ended(next time.Duration) bool {
	return d.stopping.Load() || (d.opts.Duration > 0 && next >= d.opts.Duration)
}

// Done is closed when the schedule has ended and every request is answered or lost.
func (d *Open) Done() <-chan struct{} { return d.done }

// Take returns what happened since the last Take, or since the start.
func (d *Open) Take() Stats {
	d.takeMu.Lock()
	defer d.takeMu.Unlock()
	now := time.Now()
	elapsed := now.Sub(d.taken)
	d.taken = now
	return collect(append([]*recorder{d.sender}, d.readerRs...), elapsed)
}

// Stop ends the schedule, waits until everything is answered or ctx ends, and closes the connections. Requests that are still
// open then count as errors, and their age as their latency: the true one is longer. Stop returns why the first connection
// was lost, if one was. It may be called more than once.
func (d *Open) Stop(ctx context.Context) error {
	d.stopOnce.Do(func() {
		d.stopping.Store(true)
		select {
		case <-d.done:
		case <-ctx.Done():
		}
		d.ticker.close()
		d.senders.Wait()
		for _, c := range d.conns {
			c.closing.Store(true)
		}
		d.closeConns()
		d.readers.Wait()
		for _, c := range d.conns {
			// A request that was pushed while its connection ended is still in the ring.
			c.abandon(time.Since(d.started))
		}
	})
	for _, c := range d.conns {
		if c.lost != nil {
			return fmt.Errorf("connection to %s lost: %w", d.opts.Addr, c.lost)
		}
	}
	return nil
}
