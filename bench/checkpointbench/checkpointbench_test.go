package checkpointbench

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
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
