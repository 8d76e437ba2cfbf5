package dup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"replicanode/bench/report"
)

// The library below the long pool starts two goroutines of its own when it is loaded.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

func TestPoliciesBecomeFlags(t *testing.T) {
	for _, tc := range []struct {
		policy        string
		want, wantNot []string
	}{
		{"idle", []string{"load_private_log=common", "checkpoint=low", "gc_logs=low"}, []string{"--max-wait", "--low-limit"}},
		{"low", []string{"load_private_log=low", "checkpoint=common", "disk_stat=common", "--max-wait", "--low-share", "--low-limit", "checkpoint.max_started=0"}, nil},
		{"parity", []string{"load_private_log=common", "checkpoint=common", "gc_values=common", "--max-wait", "--low-limit"}, nil},
		{"adaptive", []string{"load_private_log=common", "checkpoint=low", "--adaptive"}, []string{"--max-wait", "--low-share"}},
		{"common", []string{"load_private_log=common", "checkpoint=low", "gc_replicas=low"}, []string{"--adaptive", "--max-wait", "--low-share"}},
	} {
		list, err := findPolicies([]string{tc.policy})
		if err != nil {
			t.Fatal(err)
		}
		args := list[0].args(6)
		for _, w := range append(tc.want, "6") {
			if !slices.Contains(args, w) {
				t.Errorf("%s: %q is missing in %q", tc.policy, w, args)
			}
		}
		for _, w := range tc.wantNot {
			if slices.Contains(args, w) {
				t.Errorf("%s: %q is in %q", tc.policy, w, args)
			}
		}
		if list[0].Storm != (tc.policy != "idle") {
			t.Errorf("%s: storm %v", tc.policy, list[0].Storm)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		`policies "best": there is no such policy; the policies are idle, low, parity, common, adaptive`: {Policies: []string{"best"}},
		`policies "low": named twice`: {Policies: []string{"low", "low"}},
		"qps 0":                       {QPS: []float64{8000, 0}},
		"qps NaN":                     {QPS: []float64{math.NaN()}},
		"partitions -1":               {Partitions: -1},
		"workers 5000":                {Workers: 5000},
		"keys 10":                     {Keys: 10},
		"value-size 3":                {ValueSize: 3},
		"seconds 0.5":                 {Seconds: 0.5},
		"seconds NaN":                 {Seconds: math.NaN()},
		"batch-bytes":                 {BatchBytes: 100},
		"throttle-seconds":            {ThrottleSeconds: 0.5},
		"tail-bytes -1":               {TailBytes: -1},
		"no such file":                {Dir: "/none/such"},
	} {
		if _, err := Run(context.Background(), o, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestNoFolderIsLeftBehind(t *testing.T) {
	dir := t.TempDir()
	if _, err := Run(context.Background(), Options{Dir: dir, Binary: "/none/replicanode"}, nil); err == nil {
		t.Error("no binary, no error")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// fakeAdmin is a node's admin API with canned answers.
func fakeAdmin(t *testing.T, answers map[string]string) (*node, *sync.Map) {
	t.Helper()
	var asked sync.Map
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Method + " " + r.URL.Path
		n, _ := asked.LoadOrStore(key, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		body, ok := answers[key]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			body = `{"error":"no route ` + key + `"}`
		}
		_, _ = w.Write([]byte(body))
	}))
	n := newNode(strings.TrimPrefix(s.URL, "http://"), "backup")
	t.Cleanup(func() {
		n.close()
		s.Close()
	})
	return n, &asked
}

func TestAdminAnswersAreRead(t *testing.T) {
	n, asked := fakeAdmin(t, map[string]string{
		"GET /v1/duplications/backup/lag": `{"remote":"backup","lag":{"seconds":0.0125,"decrees":7,"bytes":100}}`,
		"GET /v1/duplications":            `{"pipelines":[{"state":"shipping"},{"state":"backoff"}]}`,
		"POST /v1/checkpoints":            `{"jobs":[{"id":3,"done":false}]}`,
		"GET /v1/jobs/3":                  `{"id":3,"done":true}`,
		"POST /v1/tasks/disk_stat/run":    `{"done":true}`,
		"POST /v1/tasks/gc_logs/run":      `{"done":true}`,
		"POST /v1/tasks/gc_replicas/run":  `{"done":true}`,
		"POST /v1/tasks/gc_values/run":    `{"done":true}`,
		"GET /v1/tasks":                   `{"specs":[],"stats":[{"code":"checkpoint","wait":{"p50_ns":1500000,"p99_ns":2000000,"max_ns":3000000}}]}`,
		"GET /metrics": "# HELP replicanode_plog_released_segments_total x\nreplicanode_plog_released_segments_total 3e+00\n" +
			"replicanode_gc_replica_deleted_bytes_total{disk=\"a\"} 100\nreplicanode_gc_replica_deleted_bytes_total{disk=\"b\"} 1\nreplicanode_plog_read_bytes_total 9\n",
	})
	ctx := context.Background()
	if s, err := n.lag(ctx); err != nil || s != (lagSample{worst: 12500 * time.Microsecond, decrees: 7, bytes: 100}) {
		t.Errorf("lag %+v, %v", s, err)
	}
	if ok, err := n.shipping(ctx); ok || err != nil {
		t.Errorf("one pipeline is in backoff: %v, %v", ok, err)
	}
	if err := n.maintain(ctx, 5); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"POST /v1/checkpoints", "GET /v1/jobs/3", "POST /v1/tasks/disk_stat/run", "POST /v1/tasks/gc_logs/run"} {
		if _, ok := asked.Load(path); !ok {
			t.Errorf("maintain did not ask %s", path)
		}
	}
	waits, err := n.waits(ctx)
	if err != nil || waits["checkpoint"] != (report.Quantiles{P50: 1.5, P99: 2, Max: 3}) {
		t.Errorf("waits %v, %v", waits, err)
	}
	if b, err := n.collected(ctx); err != nil || b != 3<<20+101 {
		t.Errorf("collected %d, %v", b, err)
	}
}

func TestAdminRefusalsAreErrors(t *testing.T) {
	n, _ := fakeAdmin(t, map[string]string{
		"POST /v1/checkpoints": `{"jobs":[{"id":3,"done":true,"error":"disk full"}]}`,
		"GET /v1/duplications": `{"pipelines":[]}`,
	})
	ctx := context.Background()
	if err := n.maintain(ctx, 0); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("a failed checkpoint: %v", err)
	}
	if _, err := n.lag(ctx); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("an unknown remote: %v", err)
	}
	if ok, _ := n.shipping(ctx); ok {
		t.Error("no pipeline is shipping")
	}
	if _, err := n.collected(ctx); err == nil {
		t.Error("no metrics, no error")
	}
}

// A node that answers late is charged for the whole time in which it did not answer.
func TestSamplerWeighsLateAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		s := startSampler(t.Context(), func(context.Context) (lagSample, error) {
			switch since := time.Since(begun); {
			case since < time.Second:
				return lagSample{worst: time.Millisecond, decrees: 1}, nil
			case since < 1500*time.Millisecond:
				time.Sleep(time.Second)
				return lagSample{worst: time.Second, decrees: 1000}, nil
			case since < 3*time.Second:
				return lagSample{}, errors.New("no answer")
			}
			return lagSample{worst: 500 * time.Millisecond}, nil
		})
		defer s.stop()
		time.Sleep(4*time.Second + lagInterval/2)
		seen, err := s.take()
		if err != nil || seen.decrees != 1000 {
			t.Errorf("backlog %d, %v", seen.decrees, err)
		}
		lag := seen.lag
		// 1 s at 1 ms, then 1 s at 1 s, then 1 s without an answer and 1 s at 500 ms.
		if n := lag.TotalCount(); n < 198 || n > 202 {
			t.Errorf("%d samples stand for 4 s, want 200", n)
		}
		if p := lag.ValueAtQuantile(24); p > 1100 {
			t.Errorf("a quarter of the time the lag was 1 ms, not %d us", p)
		}
		if p := lag.ValueAtQuantile(76); p < 900_000 {
			t.Errorf("a quarter of the time the lag was 1 s, not %d us", p)
		}
		if p := lag.ValueAtQuantile(50); p < 490_000 || p > 510_000 {
			t.Errorf("the median lag was 500 ms, not %d us", p)
		}
	})
}

func TestStormKeepsItsQuotaAndConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		cycle := func(ctx context.Context, partition int) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Duration(partition+1) * 10 * time.Millisecond)
			return nil
		}
		first := startStorm(t.Context(), 3, nil, cycle)
		time.Sleep(605 * time.Millisecond)
		done, err := first.finish(t.Context())
		if err != nil || !slices.Equal(done, []int{61, 31, 21}) {
			t.Errorf("cycles %v, %v", done, err)
		}
		second := startStorm(t.Context(), 3, done, cycle)
		again, err := second.finish(t.Context())
		if err != nil || !slices.Equal(again, done) {
			t.Errorf("the quota %v became %v, %v", done, again, err)
		}
		if most.Load() != 3 {
			t.Errorf("%d requests were open at once, want 3", most.Load())
		}
	})
}

func TestStormRetriesAndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		s := startStorm(t.Context(), 1, []int{5}, func(context.Context, int) error {
			if calls.Add(1)%2 == 0 {
				return errors.New("queue full")
			}
			return nil
		})
		if done, err := s.finish(t.Context()); err != nil || done[0] != 5 {
			t.Errorf("cycles %v, %v", done, err)
		}
		s = startStorm(t.Context(), 2, []int{1, 1}, func(_ context.Context, p int) error {
			if p == 1 {
				return errors.New("disk gone")
			}
			return nil
		})
		if _, err := s.finish(t.Context()); err == nil || !strings.Contains(err.Error(), "disk gone") {
			t.Errorf("a storm that cannot work: %v", err)
		}
		s = startStorm(t.Context(), 1, []int{1}, func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.finish(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a stuck storm: %v", err)
		}
	})
}

func TestReportKeepsItsKeys(t *testing.T) {
	caught := 1.25
	r := Report{Runs: []Result{
		{Policy: "low", QPS: 8000, CheckpointsDone: 40, LostAtFailover: 5, TaskWaitMs: map[string]report.Quantiles{"load_private_log": {P99: 12}}},
		{Policy: "common", QPS: 8000, CheckpointsDone: 40, CatchupS: &caught, WriteErrors: 3},
	}}
	r.Config.EnsureDefaults()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Runs    []map[string]json.RawMessage
		Results []map[string]json.RawMessage
		Config  map[string]any
		Machine map[string]any
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"policy", "qps", "lag_ms", "backlog_max", "write_ms", "catchup_s", "lost_at_failover", "checkpoints_done", "gc_bytes", "task_wait_ms"} {
		if doc.Runs[0][key] == nil {
			t.Errorf("runs have no key %q", key)
		}
	}
	if len(doc.Results) != 2 || doc.Results[0]["name"] == nil {
		t.Errorf("results %v", doc.Results)
	}
	for _, key := range []string{"lag_ms", "write_ms"} {
		if s := string(doc.Runs[0][key]); s != `{"p50":0,"p99":0,"max":0}` {
			t.Errorf("%s is %s", key, s)
		}
	}
	if s := string(doc.Runs[0]["catchup_s"]); s != "null" {
		t.Errorf("catchup_s of a backup that did not catch up is %s", s)
	}
	if doc.Config["seed"] == nil || doc.Config["policies"] == nil || doc.Machine["cpus"] == nil {
		t.Errorf("config %v, machine %v", doc.Config, doc.Machine)
	}
	var table bytes.Buffer
	if err := r.Write(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"catch-up s", ">6", "1.25", "common at 8000/s: 3 writes failed"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("%q is missing in\n%s", want, table.String())
		}
	}
	if strings.Contains(table.String(), "cannot be compared") {
		t.Error("equal maintenance is called unequal")
	}
	r.Runs[1].CheckpointsDone = 39
	table.Reset()
	if err := r.Write(&table); err != nil || !strings.Contains(table.String(), "cannot be compared") {
		t.Errorf("unequal maintenance is not told:\n%s", table.String())
	}
}
