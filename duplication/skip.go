package duplication

import (
	"errors"
	"fmt"
	"time"

	"replicanode/peer/peerpb"
	"replicanode/replica/mutation"
)

// FailMode says what happens to a mutation that a remote will never have: it refuses it for good, or the log does not hold it any more.
type FailMode uint8

// The fail modes.
const (
	// FailSlow: the pipeline stops before the mutation, says so, and tries again for ever.
	FailSlow FailMode = iota
	// FailSkip: the mutation is left out, which is counted and told, and the next one is shipped.
	FailSkip
)

var failModeNames = [...]string{"slow", "skip"}

// ParseFailMode is the inverse of String.
func ParseFailMode(name string) (FailMode, error) {
	for i, n := range failModeNames {
		if n == name {
			return FailMode(i), nil
		}
	}
	return 0, fmt.Errorf("fail mode %q: must be slow or skip", name)
}

// String is the mode's name.
func (m FailMode) String() string {
	if int(m) < len(failModeNames) {
		return failModeNames[m]
	}
	return fmt.Sprintf("fail_mode(%d)", uint8(m))
}

// MarshalText implements encoding.TextMarshaler.
func (m FailMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *FailMode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseFailMode(string(text))
	return err
}

// maxSkippedRanges is how many ranges a pipeline remembers; it counts all.
const maxSkippedRanges = 16

// SkippedRange is decrees whose mutations a remote was not given, in fail mode skip.
type SkippedRange struct {
	First  uint64    `json:"first"`
	Last   uint64    `json:"last"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// skips is what a pipeline in fail mode skip knows about what it leaves out.
type skips struct {
	// careful: up to this decree each batch has one mutation at most and waits for the one before it, so that a refusal tells which
	// mutation is meant.
	careful uint64
	// refused is the decree of the mutation that the remote refused by itself; 0: none.
	refused uint64

	ranges  []SkippedRange
	decrees uint64
	count   uint64
}

// skipRefused decides, after the stream has ended with err, whether to go on by leaving something out. At first it finds out what:
// the refused batch is sent again mutation by mutation.
func (p *pipeline) skipRefused(err error) bool {
	var refusal *refusalError
	if p.remote.FailMode != FailSkip || !errors.As(err, &refusal) || refusal.reason != peerpb.RefusalReason_REFUSAL_REASON_UNACCEPTABLE {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.inflight) == 0 {
		return false
	}
	oldest, newest := p.inflight[0], p.inflight[len(p.inflight)-1]
	switch {
	case len(p.inflight) == 1 && oldest.only != 0:
		p.refused, p.careful = oldest.only, max(p.careful, oldest.last)
		p.skipped(oldest.only, oldest.only, refusal.detail)
		return true
	case oldest.first == 0 && len(p.inflight) == 1:
		return false // a batch without mutations: leaving out more would not help
	}
	p.careful = max(p.careful, newest.last)
	return true
}

// skipCollected is the batch that passes over what the log does not hold any more. The caller holds mu, and nothing is queued.
func (p *pipeline) skipCollected() (*batch, error) {
	log, err := p.feed.log()
	if err != nil {
		return nil, err
	}
	last := log.FirstIndex() - 1
	p.collected = false
	if last <= p.clean {
		return nil, nil
	}
	p.skipped(p.clean+1, last, "the log does not hold them any more")
	return &batch{prev: p.cursor, last: last}, nil
}

// skipped notes a range; the same one again, after a stream that broke, is not news. The caller holds mu.
func (p *pipeline) skipped(first, last uint64, reason string) {
	if n := len(p.ranges); n > 0 && p.ranges[n-1].First == first && p.ranges[n-1].Last == last {
		return
	}
	p.logger.Error("mutations are not duplicated: the fail mode is skip", "first", first, "last", last, "reason", reason)
	p.decrees += last - first + 1
	p.count++
	if len(p.ranges) == maxSkippedRanges {
		p.ranges = append(p.ranges[:0], p.ranges[1:]...)
	}
	p.ranges = append(p.ranges, SkippedRange{First: first, Last: last, Reason: reason, At: time.Now()})
}

// dose cuts a batch that must be sent with care after its first mutation, or leaves out that one, and queues the rest. The caller
// holds mu.
func (p *pipeline) dose(b *batch) *batch {
	if b.prev >= p.careful || len(b.mutations) == 0 {
		return b
	}
	first, rest := b, &batch{last: b.last, loaded: b.loaded, newest: b.newest}
	if len(b.mutations) > 1 {
		first = &batch{prev: b.prev, last: b.mutations[0].Decree, mutations: b.mutations[:1], first: b.first, newest: b.first, loaded: b.loaded}
		first.bytes = len(b.mutations[0].Data)
		rest.mutations = append(rest.mutations, b.mutations[1:]...)
		rest.bytes = b.bytes - first.bytes
		rest.first = timestampOf(rest.mutations[0].Data)
		p.queue = append([]*batch{rest}, p.queue...)
		p.queueBytes += rest.bytes
		p.clean = first.last
	}
	if first.mutations[0].Decree == p.refused {
		return &batch{prev: first.prev, last: first.last}
	}
	return first
}

// timestampOf is that of a mutation which was checked before.
func timestampOf(data []byte) mutation.Timestamp {
	h, err := mutation.ParseHeader(data)
	if err != nil {
		return 0
	}
	return h.Timestamp
}

// only is the decree of a batch's mutation when there is just one, and else 0.
func (b *batch) only() uint64 {
	if len(b.mutations) != 1 {
		return 0
	}
	return b.mutations[0].Decree
}
