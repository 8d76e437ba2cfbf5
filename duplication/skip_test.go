package duplication

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/replica"
	"replicanode/replica/mutation"
)

var skipping = []Remote{{Name: "backup", Addresses: []string{node}, FailMode: FailSkip}}

// without takes mutations out of what a remote must end up with.
func (p *testPartition) without(decrees ...uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = slices.DeleteFunc(p.own, func(m mutation.SourceMutation) bool { return slices.Contains(decrees, m.Decree) })
}

// Only what the remote refuses by itself is left out, and each of it is told.
func TestSkipLeavesOutOnlyWhatIsRefused(t *testing.T) {
	tooLarge := &replica.TooLargeError{What: "value", Bytes: 9, Limit: 8}
	refused := map[uint64]error{1: tooLarge, 7: tooLarge, 8: tooLarge, 120: tooLarge, 200: tooLarge}
	for name, o := range map[string]Options{
		"tail": {}, "log": {TailBytes: -1}, "small batches": {BatchBytes: 1 << 10}, "one batch at a time": {WindowBatches: 1},
	} {
		t.Run(name, func(t *testing.T) {
			o.Remotes = skipping
			registry := prometheus.NewRegistry()
			o.Registerer = registry
			h := newHarness(t, 1, o)
			p, target := h.partitions[0], h.targets[0]
			target.refused = refused
			p.write(150, 100)
			h.startReceiver()
			h.startSource()
			p.write(60, 100)
			p.without(1, 7, 8, 120, 200)
			target.mustEqual(t, p)
			s := h.awaitStatus("all is well again", func(s PipelineStatus) bool { return s.Lag == Lag{} && s.LastError == "" })
			if s.SkippedDecrees != 5 || s.SkippedRanges != 5 || len(s.Skipped) != 5 {
				t.Errorf("skipped: %+v", s.Skipped)
			}
			for _, r := range s.Skipped {
				if r.First != r.Last || refused[r.First] == nil || !strings.Contains(r.Reason, tooLarge.Error()) {
					t.Errorf("skipped: %+v", r)
				}
			}
			expectMetric(t, registry, "replicanode_duplication_skipped_decrees_total", 5)
			expectMetric(t, registry, "replicanode_duplication_skipped_ranges_total", 5)
			text, err := json.Marshal(s)
			if err != nil || !strings.Contains(string(text), `"fail_mode":"skip"`) || !strings.Contains(string(text), `"skipped":[{"first":1,"last":1,"reason":"`) {
				t.Errorf("%s, %v", text, err)
			}
		})
	}
}

func expectMetric(t *testing.T, registry *prometheus.Registry, name string, want float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			if got := f.GetMetric()[0].GetCounter().GetValue(); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
			return
		}
	}
	t.Errorf("no metric %s", name)
}

func TestSlowNeverSkips(t *testing.T) {
	h := newHarness(t, 1, Options{})
	p, target := h.partitions[0], h.targets[0]
	target.refused = map[uint64]error{7: &replica.TooLargeError{What: "value", Bytes: 9, Limit: 8}}
	p.write(20, 100)
	h.startReceiver()
	h.startSource()
	s := h.awaitStatus("refused", func(s PipelineStatus) bool { return s.State == StateRefused })
	if s.SkippedDecrees != 0 || s.Confirmed >= 7 || s.FailMode != FailSlow {
		t.Errorf("%+v", s)
	}
	target.mu.Lock()
	target.refused = nil
	target.mu.Unlock()
	h.must(h.source.Resume("backup"))
	target.mustEqual(t, p)
}

// A clock can be set right, so what is refused for its sake is not skipped; nor does anything else that may pass.
func TestSkipWaitsForClocks(t *testing.T) {
	h := newHarness(t, 1, Options{Remotes: skipping})
	p, target := h.partitions[0], h.targets[0]
	target.refused = map[uint64]error{7: &replica.ClockSkewError{AheadSeconds: 90, LimitSeconds: 60}}
	target.busy = 3
	p.write(20, 100)
	h.startReceiver()
	h.startSource()
	s := h.awaitStatus("refused", func(s PipelineStatus) bool { return s.State == StateRefused })
	if s.SkippedDecrees != 0 || !strings.Contains(s.LastError, "clock") {
		t.Errorf("%+v", s)
	}
	target.mu.Lock()
	target.refused = nil
	target.mu.Unlock()
	h.must(h.source.Resume("backup"))
	target.mustEqual(t, p)
}

func TestSkipPassesOverACollectedLog(t *testing.T) {
	for name, o := range map[string]Options{"tail": {}, "log": {TailBytes: -1}} {
		t.Run(name, func(t *testing.T) {
			o.Remotes = skipping
			h := newHarness(t, 1, o)
			p, target := h.partitions[0], h.targets[0]
			p.write(100, 100)
			h.must(p.log.Release(50))
			h.startReceiver()
			h.startSource()
			p.write(10, 100)
			p.own = p.own[50:]
			target.mustEqual(t, p)
			s := h.awaitStatus("all is well", func(s PipelineStatus) bool { return s.Lag == Lag{} })
			if s.SkippedDecrees != 50 || len(s.Skipped) != 1 || s.Skipped[0].First != 1 || s.Skipped[0].Last != 50 {
				t.Errorf("skipped %+v", s.Skipped)
			}
		})
	}
}

func TestSkippedRangesAreBounded(t *testing.T) {
	h := newHarness(t, 1, Options{Remotes: skipping})
	p, target := h.partitions[0], h.targets[0]
	target.refused = make(map[uint64]error)
	var decrees []uint64
	for d := uint64(1); d <= 40; d++ {
		target.refused[d] = fmt.Errorf("decree %d: %w", d, mutation.ErrFormat)
		decrees = append(decrees, d)
	}
	p.write(50, 100)
	h.startReceiver()
	h.startSource()
	p.without(decrees...)
	target.mustEqual(t, p)
	s := h.awaitStatus("all is well", func(s PipelineStatus) bool { return s.Lag == Lag{} })
	if s.SkippedDecrees != 40 || s.SkippedRanges != 40 || len(s.Skipped) != maxSkippedRanges || s.Skipped[maxSkippedRanges-1].Last != 40 {
		t.Errorf("%d decrees in %d ranges, remembered %+v", s.SkippedDecrees, s.SkippedRanges, s.Skipped)
	}
}

func TestFailModesHaveNames(t *testing.T) {
	for _, m := range []FailMode{FailSlow, FailSkip} {
		text, _ := m.MarshalText()
		var again FailMode
		if err := again.UnmarshalText(text); err != nil || again != m {
			t.Errorf("%s: %v, %v", text, again, err)
		}
	}
	if _, err := ParseFailMode("fast"); err == nil || FailMode(9).String() != "fail_mode(9)" {
		t.Errorf("an unknown mode: %v, %s", err, FailMode(9))
	}
}

// A mutation that is refused in a batch of its own is known at once.
func TestSkipOfALoneMutation(t *testing.T) {
	h := newHarness(t, 1, Options{Remotes: skipping})
	p, target := h.partitions[0], h.targets[0]
	target.refused = map[uint64]error{1: &replica.TooLargeError{What: "value", Bytes: 9, Limit: 8}}
	p.write(1, 100)
	h.startReceiver()
	h.startSource()
	s := h.awaitStatus("it is passed over", func(s PipelineStatus) bool { return s.Confirmed == 1 })
	if s.SkippedDecrees != 1 || s.Failures != 1 {
		t.Errorf("%+v", s)
	}
	p.write(1, 100)
	p.without(1)
	target.mustEqual(t, p)
}
