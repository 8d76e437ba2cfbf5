package duplication

import (
	"log/slog"
	"sync"
	"time"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

// normalEntry is the entry type of mutations and no-ops; the others change the group's configuration.
const normalEntry = 0

// feed is what one partition has applied: its tail and timeline, shared by the pipelines to all remotes.
type feed struct {
	partition Partition
	cluster   uint64
	skipBytes uint64
	logger    *slog.Logger
	cancel    func()
	// pipelines is complete before the feed subscribes.
	pipelines []*pipeline
	// interval is the least time between two records of progress; changed holds one signal: some remote has confirmed more.
	interval time.Duration
	changed  chan struct{}

	mu   sync.Mutex
	tail tail
	line timeline
	// base is the newest decree that the feed has not seen itself: whether anything up to it is to be shipped, only the log knows.
	base uint64
	// applied is the newest decree known to be applied.
	applied uint64
	// passed counts the bytes of decrees that are not to be shipped; unannounced those since the pipelines were last woken.
	passed, unannounced uint64
}

func newFeed(partition Partition, o *Options) *feed {
	return &feed{
		partition: partition, cluster: o.ClusterID, skipBytes: uint64(o.SkipBytes), logger: o.Logger,
		interval: o.RecordInterval, changed: make(chan struct{}, 1), tail: tail{limit: o.tailLimit()},
	}
}

// subscribe starts the feed at the partition's present state.
func (f *feed) subscribe() {
	f.mu.Lock()
	f.applied = f.partition.Applied()
	f.base = f.applied
	f.tail.reset(f.applied + 1)
	f.mu.Unlock()
	f.cancel = f.partition.Subscribe(f)
	// What was applied between the two steps above reached no subscriber.
	applied := f.partition.Applied()
	f.mu.Lock()
	if f.applied == f.base && applied > f.base {
		f.applied, f.base = applied, applied
		f.tail.reset(applied + 1)
	}
	f.mu.Unlock()
}

// Applied takes in what the partition has applied, in decree order, and wakes the pipelines if that gives them something to do.
func (f *feed) Applied(entries []plog.Entry) {
	if f.take(entries) {
		for _, p := range f.pipelines {
			p.signal()
		}
	}
}

func (f *feed) take(entries []plog.Entry) (wake bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		if e.Index <= f.applied {
			continue
		}
		if e.Index > f.applied+1 {
			f.base = e.Index - 1
		}
		f.applied = e.Index
		timestamp, ship, err := shippable(e, f.cluster)
		if err != nil {
			f.logger.Error("applied entry is not a mutation; it is not duplicated", "partition", f.partition.ID(), "decree", e.Index, "error", err)
		}
		if ship {
			f.tail.add(e.Index, timestamp, e.Data)
			f.line.add(e.Index, timestamp, len(e.Data))
			wake = true
			continue
		}
		f.tail.add(e.Index, 0, nil)
		f.passed += uint64(len(e.Data)) + recordOverhead
		f.unannounced += uint64(len(e.Data)) + recordOverhead
		// A no-op may be the first entry of this node's own leadership.
		wake = wake || len(e.Data) == 0 || f.unannounced >= f.skipBytes
	}
	if wake {
		f.unannounced = 0
	}
	return wake
}

// shippable says whether an entry is a user mutation made in the given cluster, and when it was made.
func shippable(e *plog.Entry, cluster uint64) (mutation.Timestamp, bool, error) {
	if e.Type != normalEntry || len(e.Data) == 0 {
		return 0, false, nil
	}
	h, err := mutation.ParseHeader(e.Data)
	if err != nil {
		return 0, false, err
	}
	return h.Timestamp, h.Kind == mutation.User && h.Cluster == cluster, nil
}

// view is what a feed holds beyond a position.
type view struct {
	// records follow the position without a gap.
	records []record
	// clean is the highest decree known to have nothing to ship between it and the position.
	clean uint64
	// behind says that the next decree is in the log only.
	behind bool
	passed uint64
}

// after looks beyond position; the records are appended to into and end once their cost reaches maxBytes.
func (f *feed) after(position uint64, maxBytes int, into []record) view {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := view{clean: position, passed: f.passed}
	switch {
	case position >= f.applied:
	case position >= f.base && f.line.last <= position:
		v.clean = f.applied
	default:
		var ok bool
		v.records, ok = f.tail.read(position+1, maxBytes, into)
		v.behind = !ok
	}
	return v
}

// log is the partition's private log.
func (f *feed) log() (*plog.Log, error) {
	if l := f.partition.Log(); l != nil {
		return l, nil
	}
	return nil, errNotOpen
}

// inTail says whether a pipeline at position needs no log: the tail goes on from there, or there is nothing more.
func (f *feed) inTail(position uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return position >= f.applied || position+1 >= f.tail.first()
}

func (f *feed) head() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
}

// trim forgets what every remote has confirmed.
func (f *feed) trim() {
	lowest := ^uint64(0)
	for _, p := range f.pipelines {
		lowest = min(lowest, p.floor.Load())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tail.trim(lowest)
	f.line.trim(lowest)
}
