package sched

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The goroutine supply's package keeps a default pool of its own.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

type inline struct{}

func (inline) Submit(f func()) error { f(); return nil }
func (inline) Close() error          { return nil }

// The figures are for people to judge; here it only counts that each measurement is made and is complete.
func TestEveryMeasurementReports(t *testing.T) {
	rs, err := Run(t.Context(), Options{
		Tasks: 5000, Backlogs: []int{10, 100}, Saturation: 300 * time.Millisecond, Samples: 10,
		Peers: []Peer{{Name: "inline", Open: func(int) (PeerPool, error) { return inline{}, nil }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, r := range rs {
		seen[r.Name]++
		if r.NsPerOp == 0 && r.MaxUs == 0 && r.Share == 0 && r.Ratio == 0 {
			t.Errorf("empty result %+v", r)
		}
		t.Log(r)
	}
	for _, n := range Names() {
		if seen[n] == 0 {
			t.Errorf("nothing for %s", n)
		}
	}
	if seen["backlog"] != 6 || seen["producers"] != 4 {
		t.Errorf("results by name: %v", seen)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{Only: []string{"nonsense"}}, {Workers: -1}, {Tasks: 1}, {Backlogs: []int{0}}, {Samples: -1}, {Saturation: 1}} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{}); err == nil {
		t.Error("a cancelled run succeeded")
	}
}
