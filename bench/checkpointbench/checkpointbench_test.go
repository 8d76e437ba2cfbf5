package checkpointbench

import (
	"context"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.uber.org/goleak"

	"replicanode/bench/load"
)

func TestMain(m *testing.M) {
	// ants starts goroutines of its own when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

func TestSmall(t *testing.T) {
	o := Options{Only: []string{"slow", "local", "incremental"}, Dir: t.TempDir(), Partitions: 8, Keys: 20_000, IncrementalKeys: 20_000, Latency: 5 * time.Millisecond, Rounds: 1}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	results, err := Run(context.Background(), o)
	if err != nil || len(results) != 7 {
		t.Fatalf("%v, %v", results, err)
	}
	for i, r := range results {
		if r.Name != Names()[i] || r.Seconds <= 0 || r.String() == "" {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	if results[1].Speedup <= 0 {
		t.Errorf("no speed-up is told: %+v", results[1])
	}
	if r := results[6]; r.OfFullBytes > 0.1 {
		t.Errorf("a hundredth of the keys takes %.2f of the bytes", r.OfFullBytes)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Only: []string{"x"}}, {Partitions: -1}, {Keys: 1}, {IncrementalKeys: 7}, {ValueSize: 1 << 20}, {Latency: time.Minute}, {QPS: -1}, {Seconds: -1}, {Rounds: -1}} {
		o.EnsureDefaults()
		if err := o.Validate(); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

// TestWindows: the median of the windows' p99 is not moved by one window in which the disk stood still, and one that was cut short
// counts for the whole only.
func TestWindows(t *testing.T) {
	p := newPart("x")
	for _, w := range []struct {
		latency time.Duration
		seconds float64
	}{{10 * time.Millisecond, 2}, {12 * time.Millisecond, 2}, {900 * time.Millisecond, 2}, {500 * time.Millisecond, 0.5}} {
		one := newPart("")
		for _, h := range []*hdrhistogram.Histogram{one.reads, one.writes, one.lag} {
			load.Record(h, w.latency, 100)
		}
		one.r.Seconds = w.seconds
		p.add(one)
	}
	r := p.result()
	if r.Windows != 3 || r.Seconds != 6.5 {
		t.Errorf("%d windows in %v s", r.Windows, r.Seconds)
	}
	for _, v := range []float64{r.ReadWindowMs, r.WriteWindowMs, r.LagWindowMs} {
		if v < 11.9 || v > 12.1 {
			t.Errorf("median of the windows' p99 %.2f ms, want 12", v)
		}
	}
	for _, v := range []float64{r.ReadP99Ms, r.WriteP99Ms, r.LagP99Ms} {
		if v < 890 || v > 910 {
			t.Errorf("p99 %.2f ms, want 900", v)
		}
	}
}
