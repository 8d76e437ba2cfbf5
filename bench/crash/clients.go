package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// ViolationError says that a node showed what it must not.
type ViolationError struct {
	// Round counts from 1.
	Round int
	// Node is "primary" or "backup".
	Node string
	// Detail is what was seen.
	Detail string
}

func (e *ViolationError) Error() string {
	return fmt.Sprintf("round %d: the %s breaks its word: %s", e.Round, e.Node, e.Detail)
}

const (
	replyTimeout = 20 * time.Second
	readBatch    = 200
)

// connect makes a client that never sends anything twice. Only one goroutine uses it, so it has one connection; the pool is larger
// because the library tries to connect on and on, beyond Close, once as many attempts have failed as the pool is large. Its own log
// is switched off, in the whole process: it tells every connection that a kill breaks.
func connect(addr string) *redis.Client {
	logging.Disable()
	return redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, PoolSize: 16, DialerRetries: 1, Protocol: 2, DisableIdentity: true, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout,
	})
}

// fleet is all clients with their keys.
type fleet struct {
	clients []*writer
	hot     []hotKey
	round   int
	// persistent clients go on with the hot keys when everything else was refused.
	persistent bool
	refused    atomic.Uint64 // operations answered with an error
	acked      atomic.Uint64

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// writer is one client.
type writer struct {
	fleet  *fleet
	number int
	keys   []*key
	rng    *rand.Rand
	err    error // why the load ended early; read it after the fleet has stopped
	wrong  error // a reply that contradicts the state
}

func newFleet(o Options) *fleet {
	f := &fleet{hot: newHotKeys(o.Partitions)}
	for c := range o.Clients {
		w := &writer{fleet: f, number: c, rng: rand.New(rand.NewPCG(o.Seed, uint64(c)+1))}
		for i := range o.Keys {
			w.keys = append(w.keys, newKey(c, i, o.ValueSize))
		}
		f.clients = append(f.clients, w)
	}
	return f
}

// start lets all clients write to addr until stop, or until their connection breaks.
func (f *fleet) start(addr string) {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.round++
	for _, key := range f.hot {
		key.begin(f.round)
	}
	for _, w := range f.clients {
		w.err, w.wrong = nil, nil
		f.wg.Go(func() { w.write(ctx, addr) })
	}
}

// stop lets the batches on their way finish and returns a contradiction, and otherwise why the first client ended by itself.
func (f *fleet) stop() (wrong, broken error) {
	f.cancel()
	f.wg.Wait()
	for _, w := range f.clients {
		if w.wrong != nil {
			return w.wrong, nil
		}
		if w.err != nil && broken == nil {
			broken = w.err
		}
	}
	return nil, broken
}

// inFlight counts the operations of which nobody knows whether they took effect.
func (f *fleet) inFlight() (n int) {
	for _, w := range f.clients {
		for _, k := range w.keys {
			if k.open {
				n++
			}
		}
	}
	return n
}

func (w *writer) write(ctx context.Context, addr string) {
	c := connect(addr)
	defer c.Close()
	for ctx.Err() == nil && w.err == nil && w.wrong == nil {
		w.batch(c)
	}
}

// batch sends one operation for each of some keys of its own, and bursts of operations on some hot keys, in one pipeline. A key of
// its own whose last operation was refused is left alone until it is settled: nobody knows its state.
func (w *writer) batch(c *redis.Client) {
	ctx := context.Background()
	p := c.Pipeline()
	type sent struct {
		key      *key
		cmd      redis.Cmder
		accepted func() bool
	}
	var list []sent
	share := w.rng.Float64()
	for _, k := range w.keys {
		if k.open || w.rng.Float64() > share {
			continue
		}
		cmd, accepted := k.send(ctx, p)
		k.open = true
		list = append(list, sent{k, cmd, accepted})
	}
	if len(list) == 0 && !w.fleet.persistent {
		w.err = w.stalled()
		return
	}
	hot := pickHot(ctx, w.rng, w.fleet.hot, p, w.number)
	_, _ = p.Exec(ctx)
	for _, s := range list {
		w.note(s.cmd.Err(), func() error {
			if !s.accepted() {
				return fmt.Errorf("key %s: the reply to operation %d contradicts it: %v", s.key.name, s.key.acked+1, s.cmd)
			}
			s.key.acked++
			s.key.open = false
			return nil
		})
	}
	for _, op := range hot {
		w.note(op.cmd.Err(), op.settle)
	}
}

// note takes in the result of an operation; settle is called when it was acknowledged, and says what is wrong with the reply.
func (w *writer) note(err error, settle func() error) {
	var refusal redis.Error
	switch {
	case err == nil:
		if wrong := settle(); wrong != nil {
			w.wrong = wrong
			return
		}
		w.fleet.acked.Add(1)
	case errors.As(err, &refusal):
		w.fleet.refused.Add(1)
	default:
		w.err = err
	}
}

// stalled says whether nothing can be written any more because everything was refused.
func (w *writer) stalled() error {
	for _, k := range w.keys {
		if !k.open {
			return nil
		}
	}
	return errors.New("every operation was refused")
}

// compare reads all keys from the node at addr and settles them with what it shows.
func (f *fleet) compare(ctx context.Context, addr string) error {
	c := connect(addr)
	defer c.Close()
	for _, w := range f.clients {
		for from := 0; from < len(w.keys); from += readBatch {
			if err := compareBatch(ctx, c, w.keys[from:min(from+readBatch, len(w.keys))]); err != nil {
				return err
			}
		}
	}
	p := c.Pipeline()
	checks := make([]func() error, len(f.hot))
	for i, key := range f.hot {
		checks[i] = key.read(ctx, p)
	}
	_, _ = p.Exec(ctx)
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// mismatch is a key that shows what it must not, as opposed to a read that failed.
type mismatch struct{ error }

func compareBatch(ctx context.Context, c *redis.Client, keys []*key) error {
	p := c.Pipeline()
	results := make([]func() (string, error), len(keys))
	for i, k := range keys {
		results[i] = k.read(ctx, p)
	}
	_, _ = p.Exec(ctx)
	for i, k := range keys {
		shown, err := results[i]()
		if err != nil {
			return fmt.Errorf("read key %s: %w", k.name, err)
		}
		if err := k.settle(shown); err != nil {
			return mismatch{err}
		}
	}
	return nil
}

// brokenConnection says whether err is what a client sees when the node dies.
func brokenConnection(err error) bool {
	var network net.Error
	return err == nil || !errors.As(err, &network) || !network.Timeout()
}
