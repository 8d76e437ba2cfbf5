package duplication

import (
	"fmt"
	"slices"
	"time"
)

// Status describes all pipelines, by partition and then by remote in the order of the options.
func (s *Source) Status() []PipelineStatus {
	now := time.Now()
	list := make([]PipelineStatus, 0, len(s.all))
	for _, p := range s.all {
		list = append(list, p.status(now))
	}
	return list
}

// LagSample is the lag of the partition that is furthest behind a remote in seconds, with the decrees and bytes of all
// partitions. It costs about a microsecond per partition.
func (s *Source) LagSample(remote string) (Lag, error) {
	if !s.hasRemote(remote) {
		return Lag{}, fmt.Errorf("%w: %q", ErrUnknownRemote, remote)
	}
	now := time.Now()
	var total Lag
	for _, p := range s.all {
		if p.remote.Name == remote {
			l := p.lag(now)
			total.Seconds = max(total.Seconds, l.Seconds)
			total.Decrees += l.Decrees
			total.Bytes += l.Bytes
		}
	}
	return total, nil
}

// Confirmed is the highest decree of a partition that every remote has; the log up to it is not needed for duplication. It is
// what the remotes have said since this process started, or else what the partition remembers of them. known is false, and the
// decree 0, while a remote was never heard of. Without remotes everything is confirmed: the decree is the greatest there is.
func (s *Source) Confirmed(partition uint32) (lowest uint64, known bool) {
	f := s.feeds[partition]
	if f == nil {
		return 0, false
	}
	lowest = ^uint64(0)
	for _, p := range f.pipelines {
		confirmed, known := p.confirmedDecree()
		if !known {
			return 0, false
		}
		lowest = min(lowest, confirmed)
	}
	return lowest, true
}

func (p *pipeline) confirmedDecree() (uint64, bool) {
	p.mu.Lock()
	confirmed, known := p.confirmed, p.known
	p.mu.Unlock()
	if known {
		return confirmed, true
	}
	return p.feed.partition.Confirmed(p.remote.Name)
}

func (p *pipeline) status(now time.Time) PipelineStatus {
	lag := p.lag(now)
	applied := p.feed.partition.Applied()
	confirmed, known := p.confirmedDecree()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PipelineStatus{
		Partition: p.feed.partition.ID(), Remote: p.remote.Name, Address: p.address,
		State: p.state, Since: p.since, LimitedBy: p.limit(),
		Applied: applied, Sent: p.cursor, Confirmed: confirmed, Known: known, Lag: lag,
		InFlightBatches: len(p.inflight), InFlightBytes: p.inflightBytes, ReadAheadBytes: p.queueBytes,
		ShippedMutations: p.mutations, ShippedBytes: p.bytes, ShippedBatches: p.batches, LoadedBytes: p.loadedBytes,
		Connects: p.connects, Failures: p.failures, RetryAt: p.retryAt,
		FailMode: p.remote.FailMode, SkippedDecrees: p.skips.decrees, SkippedRanges: p.skips.count, Skipped: slices.Clone(p.skips.ranges),
	}
	if p.lastError != nil {
		s.LastError, s.LastErrorAt = p.lastError.Error(), p.errorAt
	}
	return s
}

// limit says what the pipeline waits for. The caller holds mu.
func (p *pipeline) limit() LimitedBy {
	switch p.state {
	case StateConnecting, StateBackoff, StateRefused, StateLogCollected:
		return LimitedByRemote
	case StateShipping:
	default:
		return LimitedByNothing
	}
	switch {
	case p.full || p.idle && len(p.inflight) > 0:
		return LimitedByRemote
	case p.idle || len(p.queue) > 0:
		return LimitedByNothing
	case p.loading && p.reading:
		return LimitedByDisk
	case p.loading:
		return LimitedByScheduling
	}
	return LimitedByNothing
}
