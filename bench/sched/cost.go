package sched

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"replicanode/threadpool"
)

const (
	ours       = "threadpool"
	oursSilent = "threadpool without metrics"
)

// meter reads clocks and counters around a measurement.
type meter struct {
	wall    time.Time
	cpu     time.Duration
	mallocs uint64
}

func startMeter() meter {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return meter{wall: time.Now(), cpu: cpuTime(), mallocs: m.Mallocs}
}

// stop ends the measurement of one round and keeps the best of each figure in r: what else a machine does only adds to the others.
func (m meter) stop(r *Result, ops int) {
	wall, cpu := time.Since(m.wall), cpuTime()-m.cpu
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	n := float64(ops)
	ns, cpuNs, allocs := float64(wall)/n, float64(cpu)/n, float64(after.Mallocs-m.mallocs)/n
	if r.rounds++; r.rounds == 1 {
		r.NsPerOp, r.CPUNsPerOp, r.AllocsPerOp = ns, cpuNs, allocs
		return
	}
	r.NsPerOp, r.CPUNsPerOp, r.AllocsPerOp = min(r.NsPerOp, ns), min(r.CPUNsPerOp, cpuNs), min(r.AllocsPerOp, allocs)
}

// cpuTime is the processor time the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// openPool starts a pool of ours.
func openPool(ctx context.Context, o threadpool.Options) (*threadpool.Pool, error) {
	p, err := threadpool.New(o)
	if err != nil {
		return nil, err
	}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// stopPool ends a pool whose tasks have ended or end when cancelled.
func stopPool(p *threadpool.Pool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return p.Stop(ctx)
}

// passes is how often the costs with a backlog are measured, all pools and sizes in turn, so that a slow minute of the machine
// does not hit one of them alone.
const passes = 3

// measureBacklog measures a task from submit to finish with a standing backlog.
func measureBacklog(ctx context.Context, o *Options) ([]Result, error) {
	var own, peers []Result
	for range passes {
		rs, err := backlogsOfOurs(ctx, o)
		if own = keepBest(own, rs); err != nil {
			return own, err
		}
		for _, p := range o.Peers {
			o.Progress("backlog of " + p.Name)
			rs, err := backlogsOfPeer(ctx, o, p)
			if err != nil {
				return append(own, peers...), fmt.Errorf("%s: %w", p.Name, err)
			}
			peers = keepBest(peers, rs)
		}
	}
	for i := range own {
		if r := &own[i]; r.Goal != "" {
			r.Met = r.NsPerOp <= 100 && r.AllocsPerOp < 0.01
		}
	}
	return slices.Concat(own, peers, compare(own, peers)), nil
}

// backlogsOfOurs measures our pool with each backlog, with and without metrics.
func backlogsOfOurs(ctx context.Context, o *Options) ([]Result, error) {
	var out []Result
	for _, queued := range o.Backlogs {
		for _, subject := range []string{ours, oursSilent} {
			r, err := backlogOfOurs(ctx, o, subject, queued)
			if err != nil {
				return out, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// keepBest adds results to those of earlier passes. Of what was measured before, the better of each figure stays.
func keepBest(all, rs []Result) []Result {
	for _, r := range rs {
		i := slices.IndexFunc(all, func(a Result) bool { return a.Subject == r.Subject && a.Queued == r.Queued })
		if i < 0 {
			all = append(all, r)
			continue
		}
		a := &all[i]
		a.NsPerOp, a.CPUNsPerOp, a.AllocsPerOp = min(a.NsPerOp, r.NsPerOp), min(a.CPUNsPerOp, r.CPUNsPerOp), min(a.AllocsPerOp, r.AllocsPerOp)
	}
	return all
}

// backlogsOfPeer measures a peer with the same backlogs, or, if it has no queue, with one submitter that it blocks.
func backlogsOfPeer(ctx context.Context, o *Options, p Peer) ([]Result, error) {
	if !p.Queues {
		r, err := costOfPeer(ctx, o, p, 1)
		return []Result{r}, err
	}
	var out []Result
	for _, queued := range o.Backlogs {
		r, err := backlogOfPeer(ctx, o, p, queued)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// compare relates our costs, in processor time, to each other and to those of the peers.
func compare(own, peers []Result) []Result {
	flat := Result{Subject: "most queued to fewest", Goal: "within 20 %"}
	if timed := slices.DeleteFunc(slices.Clone(own), func(r Result) bool { return r.Subject != ours }); len(timed) > 1 {
		flat.Ratio = timed[len(timed)-1].CPUNsPerOp / timed[0].CPUNsPerOp
	}
	flat.Met = flat.Ratio >= 0.8 && flat.Ratio <= 1.2
	out := []Result{flat}
	for _, p := range peers {
		for _, subject := range []string{ours, oursSilent} {
			r := Result{Subject: p.Subject + " to " + subject, Queued: p.Queued, Ratio: p.CPUNsPerOp / same(own, subject, p.Queued), Met: true}
			switch {
			case p.Subject == "ants" && subject == ours:
				r.Goal, r.Met = "at least 4", r.Ratio >= 4
			case p.Subject == "pond" && subject == oursSilent:
				r.Goal, r.Met = "more than 1", r.Ratio > 1
			default:
				continue
			}
			out = append(out, r)
		}
	}
	return out
}

// same is the cost of one of ours with so many queued, or its greatest for peers that have no queue.
func same(own []Result, subject string, queued int) float64 {
	cost := 0.0
	for _, r := range own {
		if r.Subject == subject && (queued == 0 || r.Queued == queued) {
			cost = max(cost, r.CPUNsPerOp)
		}
	}
	return cost
}

func backlogOfOurs(ctx context.Context, o *Options, subject string, queued int) (Result, error) {
	r := Result{Subject: subject, Queued: queued}
	if subject == ours {
		r.Goal = "at most 100 ns, no allocation"
	}
	n := queued + 16
	p, err := threadpool.New(threadpool.Options{Workers: o.Workers, MaxQueued: threadpool.Levels{n, n, n}, NoTiming: subject != ours})
	if err != nil {
		return r, err
	}
	var b backlog
	// A context that can end costs allocations that are its own, so the tasks have none.
	var t threadpool.Task
	t = threadpool.Task{Code: "empty", Priority: threadpool.Common, Run: func(context.Context, *threadpool.Turn) error {
		if b.ended() {
			return nil
		}
		_, err := p.Submit(context.Background(), t)
		return b.check(err)
	}}
	b.init(o, &r)
	for range queued {
		if _, err := p.Submit(context.Background(), t); err != nil {
			return r, err
		}
	}
	if err = p.Start(ctx); err == nil {
		err = b.wait(ctx)
	}
	if stopErr := stopPool(p); err == nil {
		err = stopErr
	}
	return r, err
}

// backlogOfPeer is backlogOfOurs for a peer with a queue of its own.
func backlogOfPeer(ctx context.Context, o *Options, peer Peer, queued int) (Result, error) {
	r := Result{Subject: peer.Name, Queued: queued}
	p, err := peer.Open(o.Workers)
	if err != nil {
		return r, err
	}
	var b backlog
	var f func()
	f = func() {
		if !b.ended() {
			_ = b.check(p.Submit(f))
		}
	}
	b.init(o, &r)
	for i := 0; i < queued && err == nil; i++ {
		err = p.Submit(f)
	}
	if err == nil {
		err = b.wait(ctx)
	}
	b.over.Store(true)
	if closeErr := p.Close(); err == nil {
		err = closeErr
	}
	return r, err
}

// backlog measures tasks that submit their successors, round by round.
type backlog struct {
	o        *Options
	r        *Result
	finished atomic.Int64
	// next is how many are to have finished when the next round ends; whoever finishes that one, or a later one, ends it.
	next   atomic.Int64
	mu     sync.Mutex
	m      meter
	from   int64
	over   atomic.Bool
	done   chan struct{}
	failed chan error
}

func (b *backlog) init(o *Options, r *Result) {
	b.o, b.r, b.done, b.failed = o, r, make(chan struct{}), make(chan error, 1)
	b.next.Store(int64(o.Tasks / 10))
}

// ended counts a finished task and says whether it is to have no successor.
func (b *backlog) ended() bool {
	if b.finished.Add(1) >= b.next.Load() && b.mu.TryLock() {
		b.round()
		b.mu.Unlock()
	}
	return b.over.Load()
}

// round ends a round and begins the next.
func (b *backlog) round() {
	n := b.finished.Load()
	if n < b.next.Load() {
		return
	}
	if b.from > 0 {
		b.m.stop(b.r, int(n-b.from))
	}
	if b.r.rounds == rounds {
		b.next.Store(math.MaxInt64)
		b.over.Store(true)
		close(b.done)
		return
	}
	// The other workers go on while the meter collects garbage: what they do is not measured.
	b.m = startMeter()
	b.from = b.finished.Load()
	b.next.Store(b.from + int64(b.o.Tasks/rounds))
}

func (b *backlog) check(err error) error {
	if err != nil {
		select {
		case b.failed <- err:
		default:
		}
	}
	return err
}

func (b *backlog) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return nil
	case err := <-b.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// costOfPeer measures producers that submit as fast as they may, until the last task has run.
func costOfPeer(ctx context.Context, o *Options, peer Peer, producers int) (Result, error) {
	r := Result{Subject: peer.Name, Producers: producers}
	p, err := peer.Open(o.Workers)
	if err != nil {
		return r, err
	}
	err = produceRounds(ctx, &r, o.Tasks, producers, func(f func()) func() error {
		return func() error { return p.Submit(f) }
	})
	if closeErr := p.Close(); err == nil {
		err = closeErr
	}
	return r, err
}

// rounds is how often a cost is measured.
const rounds = 10

// produceRounds splits n tasks into rounds of produce.
func produceRounds(ctx context.Context, r *Result, n, producers int, prepare func(f func()) (submit func() error)) error {
	for range rounds {
		if err := produce(ctx, r, n/rounds, producers, prepare); err != nil {
			return err
		}
	}
	return nil
}

// produce has producers submit n tasks together and waits for the last. prepare makes the call that submits f.
func produce(ctx context.Context, r *Result, n, producers int, prepare func(f func()) (submit func() error)) error {
	var left atomic.Int64
	left.Store(int64(n))
	done := make(chan struct{})
	f := func() {
		if left.Add(-1) == 0 {
			close(done)
		}
	}
	submit := prepare(f)
	failed := make(chan error, producers)
	var wg sync.WaitGroup
	m := startMeter()
	for i := range producers {
		share := n / producers
		if i == 0 {
			share += n % producers
		}
		wg.Go(func() {
			for range share {
				if err := submit(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	select {
	case <-done:
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	m.stop(r, n)
	wg.Wait()
	return err
}

// measureProducers measures submission by one and by eight goroutines, from outside the pool.
func measureProducers(ctx context.Context, o *Options) ([]Result, error) {
	var out []Result
	for _, producers := range []int{1, 8} {
		r := Result{Subject: ours, Producers: producers}
		n := o.Tasks + 1
		p, err := openPool(ctx, threadpool.Options{Workers: o.Workers, MaxQueued: threadpool.Levels{n, n, n}})
		if err != nil {
			return out, err
		}
		err = produceRounds(ctx, &r, o.Tasks, producers, func(f func()) func() error {
			t := threadpool.Task{Code: "empty", Priority: threadpool.Common, Run: func(context.Context, *threadpool.Turn) error {
				f()
				return nil
			}}
			return func() error {
				_, err := p.Submit(context.Background(), t)
				return err
			}
		})
		if stopErr := stopPool(p); err == nil {
			err = stopErr
		}
		if producers == 8 {
			r.Goal, r.Met = "at most 250 ns", r.NsPerOp <= 250
		}
		out = append(out, r)
		if err != nil {
			return out, err
		}
		for _, peer := range o.Peers {
			r, err := costOfPeer(ctx, o, peer, producers)
			if err != nil {
				return out, fmt.Errorf("%s: %w", peer.Name, err)
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// measureYield measures a Yield that finds nothing more urgent.
func measureYield(ctx context.Context, o *Options) ([]Result, error) {
	r := Result{Subject: ours, Goal: "at most 15 ns, no allocation"}
	p, err := openPool(ctx, threadpool.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	err = p.Do(ctx, threadpool.Task{Code: "yields", Run: func(ctx context.Context, t *threadpool.Turn) error {
		n := 10 * o.Tasks
		m := startMeter()
		for range n {
			if err := t.Yield(4096); err != nil {
				return err
			}
		}
		m.stop(&r, n)
		return nil
	}})
	if stopErr := stopPool(p); err == nil {
		err = stopErr
	}
	r.Met = r.NsPerOp <= 15 && r.AllocsPerOp < 0.001
	return []Result{r}, err
}
