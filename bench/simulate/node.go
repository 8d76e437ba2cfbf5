package simulate

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"replicanode/bench/report"
	"replicanode/threadpool"
)

// event is something that happens at a time: an arrival (task 0) or the end of a running task's slice.
type event struct {
	at    time.Duration
	order uint64
	load  int
	part  int
	task  uint64
	ran   time.Duration
}

type events []event

func (h events) Len() int { return len(h) }
func (h events) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(event)) }
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// task is one in the simulated pool.
type task struct {
	load      int
	submitted time.Duration
	left      time.Duration
	started   bool
}

// defaultSlice is the work between two yields of a load that does not say.
const defaultSlice = 10 * time.Millisecond

// node is one simulated node.
type node struct {
	o      *Options
	policy *Policy
	tally  *tally
	model  *threadpool.Model
	rnd    *rand.Rand
	queue  events
	order  uint64
	tasks  map[uint64]*task
	keys   []string
}

func newNode(o *Options, p *Policy, t *tally, number, partitions int) (*node, error) {
	m, err := threadpool.NewModel(threadpool.Options{Workers: o.Workers, Guards: p.Guards.pool(), Slice: defaultSlice, NoTiming: true})
	if err != nil {
		return nil, err
	}
	n := &node{
		o: o, policy: p, tally: t, model: m, tasks: map[uint64]*task{}, keys: make([]string, partitions),
		// The same node sees the same arrivals under every policy.
		rnd: rand.New(rand.NewPCG(o.Seed, uint64(number))),
	}
	for part := range partitions {
		n.keys[part] = fmt.Sprint(part)
		for l := range o.Workload.Loads {
			n.schedule(event{at: n.gap(l), load: l, part: part})
		}
	}
	return n, nil
}

func (n *node) schedule(e event) {
	n.order++
	e.order = n.order
	heap.Push(&n.queue, e)
}

// gap draws the time to a load's next arrival.
func (n *node) gap(l int) time.Duration {
	return time.Duration(n.rnd.ExpFloat64() * float64(n.o.Workload.Loads[l].Every))
}

// length draws a task's slot time: log-normal with the given mean.
func (n *node) length(l int) time.Duration {
	load := &n.o.Workload.Loads[l]
	s := load.Spread
	drawn := float64(load.Mean) * math.Exp(s*n.rnd.NormFloat64()-s*s/2)
	return max(time.Microsecond, time.Duration(min(drawn, 100*float64(longest))))
}

func (n *node) run(ctx context.Context) error {
	for step := 0; ; step++ {
		if step%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		now := n.o.Length
		if len(n.queue) > 0 {
			now = min(now, n.queue[0].at)
		}
		if at, ok := n.model.Wake(); ok && at < now {
			n.model.Advance(at)
			n.dispatch(at)
			continue
		}
		if now >= n.o.Length {
			break
		}
		n.happen(heap.Pop(&n.queue).(event))
		n.dispatch(now)
	}
	for _, t := range n.tasks {
		if !t.started {
			n.tally.oldest[t.load] = max(n.tally.oldest[t.load], n.o.Length-t.submitted)
		}
	}
	return nil
}

func (n *node) happen(e event) {
	if e.task == 0 {
		n.arrive(e)
		return
	}
	t := n.tasks[e.task]
	if t.left -= e.ran; t.left <= 0 {
		n.model.Finish(e.at, e.task)
		delete(n.tasks, e.task)
		n.tally.finished[t.load]++
		n.tally.record(n.tally.total[t.load], e.at-t.submitted)
		return
	}
	if !n.model.Yield(e.at, e.task, 0) {
		n.work(e.at, e.task, t)
	}
}

func (n *node) arrive(e event) {
	load := &n.o.Workload.Loads[e.load]
	n.schedule(event{at: e.at + n.gap(e.load), load: e.load, part: e.part})
	length := n.length(e.load)
	mt := threadpool.ModelTask{Code: load.Code, Priority: n.tally.priority[e.load]}
	if load.Keyed {
		mt.Key = load.Code + "/" + n.keys[e.part]
	}
	n.tally.submitted[e.load]++
	id, err := n.model.Submit(e.at, mt)
	if err != nil {
		n.tally.rejected[e.load]++
		return
	}
	n.tasks[id] = &task{load: e.load, submitted: e.at, left: length}
}

// dispatch gives free slots away.
func (n *node) dispatch(now time.Duration) {
	for {
		s, ok := n.model.Next(now)
		if !ok {
			return
		}
		t := n.tasks[s.ID]
		if !t.started {
			t.started = true
			n.tally.started[t.load]++
			n.tally.record(n.tally.wait[t.load], now-t.submitted)
		}
		n.work(now, s.ID, t)
	}
}

// work runs a task's next slice.
func (n *node) work(now time.Duration, id uint64, t *task) {
	ran := t.left
	if !n.policy.NoYield {
		ran = min(ran, cmp.Or(time.Duration(n.o.Workload.Loads[t.load].Slice), defaultSlice))
	}
	n.schedule(event{at: now + ran, task: id, ran: ran})
}

// tally adds up all nodes of one policy.
type tally struct {
	o                                      *Options
	policy                                 *Policy
	priority                               []threadpool.Priority
	wait, total                            []*hdrhistogram.Histogram
	submitted, started, finished, rejected []uint64
	oldest                                 []time.Duration
}

func newTally(o *Options, p *Policy) *tally {
	n := len(o.Workload.Loads)
	t := &tally{
		o: o, policy: p, submitted: make([]uint64, n), started: make([]uint64, n), finished: make([]uint64, n), rejected: make([]uint64, n),
		oldest: make([]time.Duration, n),
	}
	for _, l := range o.Workload.Loads {
		level := l.Priority
		if v, ok := p.Priorities[l.Code]; ok {
			level = v
		}
		t.priority = append(t.priority, level)
		t.wait = append(t.wait, newHistogram(o))
		t.total = append(t.total, newHistogram(o))
	}
	return t
}

// newHistogram counts microseconds up to the length of the simulation.
func newHistogram(o *Options) *hdrhistogram.Histogram {
	return hdrhistogram.New(1, max(o.Length.Microseconds(), 1000), 3)
}

func (t *tally) record(h *hdrhistogram.Histogram, d time.Duration) {
	// Nothing can take longer than the simulation, which the histogram covers.
	_ = h.RecordValue(min(d.Microseconds(), h.HighestTrackableValue()))
}

func (t *tally) results() []Result {
	out := make([]Result, 0, len(t.priority))
	for i, l := range t.o.Workload.Loads {
		out = append(out, Result{
			Name:   Names()[0],
			Policy: t.policy.Name, Code: l.Code, Priority: t.priority[i], Submitted: t.submitted[i], Started: t.started[i], Finished: t.finished[i],
			Rejected: t.rejected[i], WaitMs: report.QuantilesOf(t.wait[i]), TotalMs: report.QuantilesOf(t.total[i]), OldestMs: float64(t.oldest[i]) / 1e6,
		})
	}
	return out
}
