package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"replicanode/threadpool"
)

func TestMain(m *testing.M) {
	// The goroutine supply's package keeps a default pool of its own.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

func TestSameSeedSameResults(t *testing.T) {
	run := func(seed uint64) string {
		rs, err := Run(t.Context(), Options{Nodes: 3, Partitions: 100, Length: 20 * time.Second, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(rs)
	}
	first := run(1)
	if run(1) != first {
		t.Error("two runs with one seed differ")
	}
	if run(2) == first {
		t.Error("two seeds give the same")
	}
}

func TestPoliciesRankAsTheyShould(t *testing.T) {
	rs, err := Run(t.Context(), Options{Nodes: 4, Partitions: 512, Length: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	load := map[string]Result{}
	for _, r := range rs {
		t.Logf("%+v", r)
		if r.Code == "load_private_log" {
			load[r.Policy] = r
		}
		if r.Submitted == 0 || r.Started < r.Finished || r.Rejected > 0 {
			t.Errorf("%s %s: %d submitted, %d started, %d finished, %d rejected", r.Policy, r.Code, r.Submitted, r.Started, r.Finished, r.Rejected)
		}
	}
	if load["common"].WaitMs.P99*5 > load["parity"].WaitMs.P99 || load["parity"].WaitMs.P99 > load["low"].WaitMs.P99 {
		t.Errorf("p99 of loading's wait: common %.1f, parity %.1f, low %.1f ms", load["common"].WaitMs.P99, load["parity"].WaitMs.P99, load["low"].WaitMs.P99)
	}
}

func TestWorkloadsAreReadAndChecked(t *testing.T) {
	b, err := json.Marshal(DefaultWorkload())
	if err != nil {
		t.Fatal(err)
	}
	w, err := ReadWorkload(bytes.NewReader(b))
	if err != nil || fmt.Sprint(w) != fmt.Sprint(DefaultWorkload()) {
		t.Errorf("read back %v, %v", w, err)
	}
	for _, bad := range []string{"", "{}", `{"loads":[{}]}`, `{"loads":[{"code":"a","every":"1s","mean":"1s","spread":9}]}`, `{"loads":[{"code":"a","every":"fast"}]}`,
		`{"nonsense":1}`, `{"loads":[{"code":"a","every":"1s","mean":"1s","slice":"1ns"}]}`, `{"loads":[{"code":"a","every":"1s","mean":"1s"}]} {}`,
		`{"nodes":-1,"loads":[{"code":"a","every":"1s","mean":"1s"}]}`, `{"loads":[{"code":"a","every":"1s","mean":"1s"}],"policies":[{}]}`,
		`{"loads":[{"code":"a","every":"1s","mean":"1s"}],"policies":[{"name":"p","priorities":{"b":"low"}}]}`,
		`{"loads":[{"code":"a","every":"1s","mean":"1s"}],"policies":[{"name":"p","guards":{"low_share":0.9}}]}`, `{"loads":[{"code":"a","priority":"urgent","every":"1s","mean":"1s"}]}`} {
		if w, err := ReadWorkload(strings.NewReader(bad)); err == nil {
			t.Errorf("%q accepted as %v", bad, w)
		}
	}
	// Errors name the place and speak of no Go types.
	for bad, want := range map[string]string{
		"": "empty", "[]": "object", `{"loads":[{"code":"a","every":1}]}`: "loads.every", `{"loads":[{"code":"a","priority":7}]}`: "loads.priority",
		`{"loads":[{"code":"a","every":"9000h","mean":"1s"}]}`: "every must be", `{"loads":[{"code":"a","every":"1s","mean":"9000h"}]}`: "mean",
		`{"loads":[{"code":"a b","every":"1s","mean":"1s"}]}`:                                      "printed",
		`{"loads":[{"code":"a","every":"1s","mean":"1s"},{"code":"a","every":"2s","mean":"1s"}]}`:  "two loads are called a",
		`{"loads":[{"code":"a","every":"1s","mean":"1s"}],"policies":[]}`:                          "policies is empty",
		`{"loads":[{"code":"a","every":"1s","mean":"1s"}],"policies":[{"name":"p"},{"name":"p"}]}`: "two policies are called p",
		`{"loads":[{"code":"a","every":"1s","mean":"1s"}],"policies":[{"name":"p\nq"}]}`:           "printed",
	} {
		if _, err := ReadWorkload(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, o := range []Options{{Nodes: 1, Partitions: 1_000_001}, {Nodes: -1}, {Nodes: 5, Partitions: 2}, {Workers: -1}, {Length: 1}, {Policies: []Policy{{Priorities: DefaultPolicies(DefaultWorkload())[2].Priorities}}, Workload: Workload{Loads: []Load{{Code: "a", Every: Duration(time.Second), Mean: Duration(time.Second)}}}}} {
		if _, err := Run(context.Background(), o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
}

func TestOptionsCanBeWrittenAsConfig(t *testing.T) {
	o := Options{Progress: func(int, int) {}}
	o.EnsureDefaults()
	text, err := json.Marshal(o)
	if err != nil || !bytes.Contains(text, []byte(`"partitions":640`)) {
		t.Errorf("%s, %v", text, err)
	}
}

// The longest times there are end, and nothing is added up beyond what a time can be.
func TestTheLongestTimesEnd(t *testing.T) {
	rs, err := Run(t.Context(), Options{Nodes: 1, Partitions: 100, Length: time.Minute, Workload: Workload{Loads: []Load{
		{Code: "rare", Every: longest, Mean: longest, Spread: 3}, {Code: "long", Every: Duration(time.Second), Mean: longest, Spread: 3},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Code == "long" && (r.Submitted < 5000 || r.Started == 0 || r.Finished > r.Started) || r.Code == "rare" && r.Submitted > 1 {
			t.Errorf("%+v", r)
		}
	}
}

// A workload of any codes can be simulated without saying how to rank them.
func TestAnyWorkloadHasPolicies(t *testing.T) {
	every, mean := Duration(50*time.Millisecond), Duration(2*time.Millisecond)
	rs, err := Run(t.Context(), Options{Nodes: 2, Partitions: 20, Length: 2 * time.Second, Workload: Workload{Loads: []Load{
		{Code: "scrub", Priority: threadpool.Low, Every: every, Mean: mean}, {Code: "ship", Priority: threadpool.Common, Every: every, Mean: mean},
		{Code: "open", Priority: threadpool.High, Every: every, Mean: mean},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(rs) != 4*3 {
		t.Errorf("%d results of four policies and three codes", len(rs))
	}
}

// A file alone can say how many nodes there are and what is to be judged; options go before it.
func TestAWorkloadNamesNodesAndPolicies(t *testing.T) {
	w, err := ReadWorkload(strings.NewReader(`{
		"nodes": 3, "partitions": 30, "workers": 1,
		"loads": [{"code": "ship", "priority": "common", "every": "20ms", "mean": "2500us"}, {"code": "compact", "every": "20ms", "mean": "1ms", "slice": "1ms"}],
		"policies": [{"name": "patient", "guards": {}}, {"name": "impatient", "guards": {"max_wait": "100ms"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Workload: w, Length: 5 * time.Second}
	rs, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	started := map[string]uint64{}
	for _, r := range rs {
		if r.Code == "compact" {
			started[r.Policy] = r.Started
		}
	}
	// COMMON alone is more than one slot can do.
	if len(rs) != 4 || started["patient"]*10 > started["impatient"] {
		t.Errorf("%d results, compactions started by policy: %v", len(rs), started)
	}
	o.EnsureDefaults()
	if o.Nodes != 3 || o.Partitions != 30 || o.Workers != 1 {
		t.Errorf("%d nodes, %d partitions, %d workers", o.Nodes, o.Partitions, o.Workers)
	}
	o = Options{Workload: w, Nodes: 5, Workers: 2}
	if o.EnsureDefaults(); o.Nodes != 5 || o.Partitions != 30 || o.Workers != 2 {
		t.Errorf("%d nodes, %d partitions, %d workers", o.Nodes, o.Partitions, o.Workers)
	}
}

func TestAnInterruptEndsALongNode(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := Options{Nodes: 1, Partitions: 10, Length: time.Hour}
	o.EnsureDefaults()
	n, err := newNode(&o, &o.Policies[0], newTally(&o, &o.Policies[0]), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.run(ctx); err != context.Canceled {
		t.Errorf("ended with %v", err)
	}
}
