package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"replicanode/tasks"
)

// ErrNodeRunning is returned while a checkpoint of the whole node is being made already.
var ErrNodeRunning = errors.New("a checkpoint of the whole node is being made already")

// PartitionError says which partition's part of a node's checkpoint failed.
type PartitionError struct {
	Partition uint32
	Err       error
}

func (e *PartitionError) Error() string { return fmt.Sprintf("partition %d: %v", e.Partition, e.Err) }

// Unwrap is why it failed.
func (e *PartitionError) Unwrap() error { return e.Err }

// Outcome is the result of one partition's part of a node's checkpoint.
type Outcome struct {
	Partition uint32 `json:"partition"`
	// Manifest is that of the partition's checkpoint; nil after a failure, and for a
	// partition to which nothing has been applied.
	Manifest *Manifest `json:"-"`
	Done     bool      `json:"done"`
	Err      error     `json:"-"`
	Problem  string    `json:"problem,omitempty"` // Err as text
}

// NodeRun is one run over all partitions of the node. All are begun at once and
// made as many at a time as the limit allows; each is retried as its code's spec
// says, and none waits for another. When all are there a NodeManifest is written.
type NodeRun struct {
	s       *Service
	begun   time.Time
	done    chan struct{}
	settled chan struct{}
	results []Outcome
	// Both are set before done is closed.
	manifest *NodeManifest
	err      error

	// mu guards results until done is closed. Nothing is called with it held.
	mu sync.Mutex
}

// Done is closed when the run has ended: the node's checkpoint is there, or it failed.
func (r *NodeRun) Done() <-chan struct{} { return r.done }

// Settled is closed when the retention has been applied, too.
func (r *NodeRun) Settled() <-chan struct{} { return r.settled }

// Err joins a *PartitionError for each partition that failed; nil until Done is
// closed and after a success.
func (r *NodeRun) Err() error {
	select {
	case <-r.done:
		return r.err
	default:
		return nil
	}
}

// Manifest describes the node's checkpoint; nil until Done is closed and after a failure.
func (r *NodeRun) Manifest() *NodeManifest {
	select {
	case <-r.done:
		return r.manifest
	default:
		return nil
	}
}

// Outcomes says of each partition how it went so far.
func (r *NodeRun) Outcomes() []Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.results)
}

// pinned is the checkpoint of a partition that the running run will name in its
// manifest. A nil run pins nothing.
func (r *NodeRun) pinned(partition uint32) []uint64 {
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	default:
	}
	for _, o := range r.Outcomes() {
		if o.Partition == partition && o.Manifest != nil {
			return []uint64{o.Manifest.Decree}
		}
	}
	return nil
}

// CreateNode begins a checkpoint of the whole node, of full ones on request.
// ErrNodeRunning while one is being made.
func (s *Service) CreateNode(full bool) (*NodeRun, error) {
	s.mu.Lock()
	if s.ctx == nil {
		s.mu.Unlock()
		return nil, ErrStopped
	}
	if s.node.running() {
		s.mu.Unlock()
		return nil, ErrNodeRunning
	}
	run := &NodeRun{s: s, begun: s.o.Create.Now().UTC(), done: make(chan struct{}), settled: make(chan struct{})}
	for id := range s.o.Create.Partitions {
		run.results = append(run.results, Outcome{Partition: id})
	}
	if len(run.results) == 0 {
		for _, p := range s.order {
			run.results = append(run.results, Outcome{Partition: p.src.ID()})
		}
		slices.SortFunc(run.results, func(a, b Outcome) int { return cmp.Compare(a.Partition, b.Partition) })
	}
	s.node = run
	s.pending.Add(1)
	ctx := s.ctx
	s.mu.Unlock()
	jobs := make([]*tasks.Job, len(run.results))
	for i := range jobs {
		var err error
		if p := s.parts[run.results[i].Partition]; p == nil {
			err = s.unknown(run.results[i].Partition)
		} else {
			jobs[i], err = s.submit(p, s.task(p, full, func(m *Manifest) { run.note(i, m, nil, false) }))
		}
		if err != nil {
			run.note(i, nil, err, true)
		}
	}
	go func() {
		defer s.pending.Done()
		run.wait(ctx, jobs)
	}()
	return run, nil
}

// running tells whether the run has not ended; false for nil.
func (r *NodeRun) running() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

func (r *NodeRun) note(i int, m *Manifest, err error, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := &r.results[i]
	o.Manifest, o.Err, o.Done = m, err, done
	if err != nil {
		o.Problem = err.Error()
	}
}

// wait ends the run: when every partition is there, so is the node's checkpoint.
func (r *NodeRun) wait(ctx context.Context, jobs []*tasks.Job) {
	var all sync.WaitGroup
	for i, job := range jobs {
		if job == nil {
			continue
		}
		all.Go(func() {
			<-job.Done()
			r.mu.Lock()
			m := r.results[i].Manifest
			r.mu.Unlock()
			r.note(i, m, job.Err(), true)
		})
	}
	all.Wait()
	var errs []error
	for _, o := range r.results {
		if o.Err != nil {
			errs = append(errs, &PartitionError{o.Partition, o.Err})
		}
	}
	m := r.compose()
	if len(errs) == 0 && ctx.Err() == nil {
		if err := r.s.o.Store.PutNode(ctx, m); err != nil {
			errs = append(errs, err)
		} else {
			r.manifest = m
		}
	}
	r.err = errors.Join(append(errs, ctx.Err())...)
	r.s.endNode(r)
	close(r.done)
	r.s.pruneAll(ctx)
	close(r.settled)
}

func (r *NodeRun) compose() *NodeManifest {
	o := &r.s.o.Create
	m := &NodeManifest{ClusterID: o.ClusterID, Partitions: uint32(len(r.results)), Created: r.begun, Finished: o.Now().UTC()}
	for _, result := range r.results {
		part := Part{Partition: result.Partition}
		if p := result.Manifest; p != nil {
			part.Decree, part.ManifestCRC, part.Entries, part.Bytes = p.Decree, p.CRC, p.Entries, p.Bytes
		}
		m.Parts = append(m.Parts, part)
	}
	return m
}

// endNode books the end of a run, and removes old checkpoints of the node after a success.
func (s *Service) endNode(r *NodeRun) {
	took := s.o.Create.Now().Sub(r.begun)
	s.mu.Lock()
	st := &s.nodeState
	st.LastError = ""
	if r.err != nil {
		st.Failures++
		st.LastError = r.err.Error()
	} else {
		st.Last = nodeSummary(r.manifest)
	}
	s.mu.Unlock()
	if r.err != nil {
		s.metrics.nodesFailed.Inc()
		s.o.Logger.Warn("checkpoint of the node failed", "error", r.err, "took", took)
		return
	}
	s.metrics.nodesDone.Inc()
	s.o.Logger.Info("checkpoint of the node done", "name", r.manifest.Name, "partitions", r.manifest.Partitions,
		"entries", r.manifest.Entries, "bytes", r.manifest.Bytes, "took", took)
}

// pruneAll applies the retention to everything and waits for it.
func (s *Service) pruneAll(ctx context.Context) {
	run, err := s.Prune(nil, s.o.Retention)
	if err == nil {
		<-run.Done()
		err = run.Err()
	}
	if err != nil && ctx.Err() == nil {
		s.o.Logger.Warn("old checkpoints not removed", "error", err)
	}
}

// NodeStatus says how the checkpoints of the whole node are doing.
type NodeStatus struct {
	// Running describes the run under way; nil when none is.
	Running *NodeRunStatus `json:"running,omitempty"`
	// Last is the newest complete one; nil when there is none.
	Last *NodeSummary `json:"last,omitempty"`
	// Failures counts failed runs since the start.
	Failures uint64 `json:"failures"`
	// LastError is why the newest run failed; empty after a success.
	LastError string `json:"last_error,omitempty"`
}

// NodeRunStatus is the progress of a run over the whole node.
type NodeRunStatus struct {
	Started    time.Time `json:"started"`
	Partitions int       `json:"partitions"`
	Done       int       `json:"done"`
	Failed     int       `json:"failed"`
	Bytes      int64     `json:"bytes"` // written so far
	// Progress is 0 to 1. A partition that is being copied counts in parts when its
	// last full checkpoint tells how much there is.
	Progress float64   `json:"progress"`
	Problems []Outcome `json:"problems,omitempty"` // the partitions that failed
}

// NodeSummary is the short form of a NodeManifest.
type NodeSummary struct {
	Name       string    `json:"name"`
	Created    time.Time `json:"created"`
	Seconds    float64   `json:"seconds"`
	Partitions uint32    `json:"partitions"`
	Entries    uint64    `json:"entries"`
	Bytes      int64     `json:"bytes"`
}

func nodeSummary(m *NodeManifest) *NodeSummary {
	return &NodeSummary{Name: m.Name, Created: m.Created, Seconds: m.Finished.Sub(m.Created).Seconds(),
		Partitions: m.Partitions, Entries: m.Entries, Bytes: m.Bytes}
}

// NodeStatus describes the newest run and the newest complete checkpoint of the node.
func (s *Service) NodeStatus() NodeStatus {
	s.mu.Lock()
	st, run := s.nodeState, s.node
	s.mu.Unlock()
	if !run.running() {
		return st
	}
	st.Running = run.status(s.Status())
	return st
}

func (r *NodeRun) status(partitions []PartitionStatus) *NodeRunStatus {
	copying := make(map[uint32]*RunStatus)
	for _, p := range partitions {
		copying[p.Partition] = p.Running
	}
	st := &NodeRunStatus{Started: r.begun}
	var sum float64
	for _, o := range r.Outcomes() {
		st.Partitions++
		running := copying[o.Partition]
		switch {
		case o.Err != nil:
			st.Failed++
			st.Problems = append(st.Problems, o)
		case o.Done || o.Manifest != nil:
			st.Done++
			if o.Manifest != nil {
				st.Bytes += o.Manifest.Bytes
			}
		case running != nil:
			st.Bytes += running.Bytes
			if running.ExpectedRawBytes > 0 {
				sum += min(0.99, float64(running.RawBytes)/float64(running.ExpectedRawBytes))
			}
		}
	}
	if st.Partitions > 0 {
		st.Progress = (sum + float64(st.Done+st.Failed)) / float64(st.Partitions)
	}
	return st
}
