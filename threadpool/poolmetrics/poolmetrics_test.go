package poolmetrics

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"replicanode/threadpool"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

func TestCollector(t *testing.T) {
	p, err := threadpool.New(threadpool.Options{Workers: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Do(t.Context(), threadpool.Task{Code: "stat", Run: func(_ context.Context, turn *threadpool.Turn) error {
		if err := turn.Yield(42); err != nil {
			return err
		}
		return turn.Sleep(time.Nanosecond)
	}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := New(p)
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			switch {
			case m.GetHistogram() != nil:
				got[name] = float64(m.GetHistogram().GetSampleCount())
			case m.GetCounter() != nil:
				got[name] = m.GetCounter().GetValue()
			default:
				got[name] = m.GetGauge().GetValue()
			}
		}
	}
	for name, want := range map[string]float64{
		"finished_total stat low": 1, "io_bytes_total stat": 42, "slots idle": 3, "slots running": 0, "yields_total stat": 1,
		"parks_total stat sleep": 1, "wait_seconds stat low": 1, "run_seconds stat low": 1, "queued_tasks high": 0,
	} {
		if v, ok := got[prefix+name]; !ok || v != want {
			t.Errorf("%s is %v (present %v), want %v", name, v, ok, want)
		}
	}
}
