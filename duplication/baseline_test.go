package duplication

import (
	"strings"
	"testing"
	"time"

	"replicanode/replica"
)

// A source that rests on what others wrote is taken by a remote only that has all of it; then everything after the base follows.
func TestBaseline(t *testing.T) {
	const base, other = 50, 0xc
	for name, c := range map[string]struct {
		held     []replica.SourceProgress
		others   map[uint64]uint64
		applied  uint64
		progress uint64
		refused  string // part of why
	}{
		"the remote has more of the origin":       {held: []replica.SourceProgress{{Cluster: other, Decree: 40}}, others: map[uint64]uint64{other: 41}},
		"the remote has just that":                {held: []replica.SourceProgress{{Cluster: other, Decree: 40}}, others: map[uint64]uint64{other: 40}},
		"the remote has less":                     {held: []replica.SourceProgress{{Cluster: other, Decree: 40}}, others: map[uint64]uint64{other: 39}, refused: "up to decree 39"},
		"the remote is empty":                     {held: []replica.SourceProgress{{Cluster: other, Decree: 40}}, refused: "cluster 12 wrote up to decree 40"},
		"the remote has one of two":               {held: []replica.SourceProgress{{Cluster: other, Decree: 40}, {Cluster: 0xd, Decree: 1}}, others: map[uint64]uint64{other: 40}, refused: "cluster 13"},
		"the remote is the origin":                {held: []replica.SourceProgress{{Cluster: clusterB, Decree: 40}}, applied: 40},
		"the remote is the origin, set back":      {held: []replica.SourceProgress{{Cluster: clusterB, Decree: 40}}, applied: 39, refused: "cluster 11 has it up to decree 39"},
		"the remote was filled from this cluster": {held: []replica.SourceProgress{{Cluster: other, Decree: 40}}, progress: base + 10},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 1, Options{})
			p, target := h.partitions[0], h.targets[0]
			p.write(base, 100)
			h.must(p.log.Release(base))
			p.own = nil
			p.baseline = replica.Baseline{Decree: base, Sources: c.held}
			p.write(20, 100)
			target.others, target.applied, target.progress = c.others, c.applied, c.progress
			h.startReceiver()
			h.startSource()
			if c.refused != "" {
				s := h.awaitStatus("refused", func(s PipelineStatus) bool { return s.State == StateRefused })
				if !strings.Contains(s.LastError, c.refused) || !strings.Contains(s.LastError, "restore a checkpoint of this cluster there") {
					t.Errorf("error %q", s.LastError)
				}
				h.awaitStatus("a lag that grows", func(s PipelineStatus) bool { return s.Lag.Decrees == base+20 && s.Lag.Seconds > 0.05 })
				if target.progress != 0 || len(target.got) != 0 || s.Known {
					t.Errorf("progress %d, %d mutations, status %+v", target.progress, len(target.got), s)
				}
				return
			}
			if c.progress > 0 {
				p.own = p.own[c.progress-base:]
			}
			target.mustEqual(t, p)
			h.awaitStatus("no lag", func(s PipelineStatus) bool { return s.Lag == Lag{} })
		})
	}
}

// What the source rests on matters only once: afterwards the other cluster's mutations come from there.
func TestBaselineIsAskedForOnce(t *testing.T) {
	h := newHarness(t, 1, Options{RefusedRetry: time.Hour})
	p, target := h.partitions[0], h.targets[0]
	p.write(10, 100)
	h.startReceiver()
	h.startSource()
	target.mustEqual(t, p)
	h.stopSource()
	p.baseline = replica.Baseline{Sources: []replica.SourceProgress{{Cluster: 0xc, Decree: 7}}}
	p.write(10, 100)
	h.startSource()
	target.mustEqual(t, p)
}
