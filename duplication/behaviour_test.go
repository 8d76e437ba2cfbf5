package duplication

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/peer/peerpb"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// countingJobs counts what is submitted.
type countingJobs struct {
	Jobs
	submitted atomic.Int64
}

func (c *countingJobs) Submit(ctx context.Context, code tasks.Code, key string, f threadpool.Func) (*tasks.Job, error) {
	c.submitted.Add(1)
	return c.Jobs.Submit(ctx, code, key, f)
}

// blockPool occupies every slot of the pool until the returned function is called.
func (h *harness) blockPool() (unblock func()) {
	h.tb.Helper()
	running, release := make(chan struct{}), make(chan struct{})
	for range 2 {
		_, err := h.pool.Submit(context.Background(), threadpool.Task{Priority: threadpool.High, Run: func(context.Context, *threadpool.Turn) error {
			running <- struct{}{}
			<-release
			return nil
		}})
		h.must(err)
	}
	<-running
	<-running
	return func() { close(release) }
}

func TestCaughtUpMeansNoLagAndNoMoreWork(t *testing.T) {
	h := newHarness(t, 1, Options{RecordInterval: time.Millisecond})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	p.write(10, 100)
	target.mustEqual(t, p)
	// The record of the progress is a decree too, and so are these; none of them is to be shipped.
	h.awaitStatus("progress is recorded", func(PipelineStatus) bool { confirmed, _ := p.Confirmed("backup"); return confirmed == 10 })
	for range 100 {
		p.append(nil, p.foreign(), p.user(clusterB, 100))
	}
	s := h.awaitStatus("lag 0", func(s PipelineStatus) bool { return s.Lag == Lag{} })
	if s.State != StateShipping || s.LimitedBy != LimitedByNothing || s.Confirmed != 10 || s.Applied != 311 {
		t.Fatalf("caught up: %+v", s)
	}
	h.stopSource()
	if p.records != 1 || target.batches > 10 || target.empty > 0 {
		t.Fatalf("%d records, %d batches, %d empty ones; want 1, at most 10, and none", p.records, target.batches, target.empty)
	}
}

func TestMuchThatIsNotShippedIsPassedOver(t *testing.T) {
	for name, o := range map[string]Options{"tail": {SkipDecrees: 100}, "log": {SkipDecrees: 100, TailBytes: -1}, "bytes": {SkipBytes: 100 * recordOverhead}} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 1, o)
			h.startReceiver()
			p, target := h.partitions[0], h.targets[0]
			for range 120 {
				p.append(p.user(clusterB, 10))
			}
			h.startSource()
			for range 500 {
				p.append(p.foreign())
			}
			p.append(nil)
			target.await(t, "progress without mutations", func() bool { return target.progress >= 500 })
			target.mu.Lock()
			defer target.mu.Unlock()
			if len(target.got) != 0 || target.empty > 10 {
				t.Fatalf("%d mutations and %d batches arrived", len(target.got), target.empty)
			}
		})
	}
}

func TestLagOfAnAbsentRemoteIsReadFromTheLog(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1, RetryMin: time.Hour, RetryMax: time.Hour})
	p := h.partitions[0]
	old := time.Now().Add(-time.Hour)
	p.clock.Physical = func() time.Time { return old }
	p.append(nil, p.foreign(), p.user(clusterA, 100))
	p.clock.Physical = nil
	p.append(p.foreign())
	h.startSource()
	s := h.awaitStatus("lag of the past", func(s PipelineStatus) bool { return s.Lag.Seconds > 60 })
	if s.Lag.Seconds < 3599 || s.Lag.Seconds > 3700 || s.Lag.Decrees < 3 || s.Known || s.LimitedBy != LimitedByRemote {
		t.Fatalf("status of a remote never seen: %+v", s)
	}
	if _, known := h.source.Confirmed(0); known {
		t.Fatal("a remote that was never heard of counts as known")
	}
	p.write(5, 1000)
	if l, err := h.source.LagSample("backup"); err != nil || l.Decrees != 9 || l.Bytes < 5000 {
		t.Fatalf("sample: %+v, %v", l, err)
	}
}

func TestNoLagWhenOnlyProgressRecordsFollowARestart(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.startReceiver()
	h.startSource()
	p := h.partitions[0]
	p.write(10, 100)
	h.awaitStatus("confirmed", func(s PipelineStatus) bool { return s.Confirmed == 10 })
	h.stopSource() // records the progress
	h.stopReceiver()
	h.startSource()
	s := h.awaitStatus("lag 0", func(s PipelineStatus) bool { return s.Applied == 11 && s.Lag == Lag{} })
	if !s.Known || s.Confirmed != 10 {
		t.Fatalf("after a restart: %+v", s)
	}
}

func TestLagFollowsTheOldestUnconfirmed(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	target.setHold(true)
	p.write(1, 1000)
	made := p.clock.Last().Time()
	target.await(t, "a batch", func() bool { return len(target.held) == 1 })
	l, err := h.source.LagSample("backup")
	if most := time.Since(made).Seconds(); err != nil || l.Seconds <= 0 || l.Seconds > most+0.002 || l.Decrees != 1 || l.Bytes < 1000 {
		t.Fatalf("sample: %+v, %v; at most %v s", l, err, most)
	}
	target.setHold(false)
	h.awaitStatus("lag 0", func(s PipelineStatus) bool { return s.Lag == Lag{} })
}

// A pipeline that waits for the remote submits nothing to the pool, however much there is to read.
func TestLimitedByRemoteAsksForNoScheduling(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1, BatchBytes: 1024, WindowBatches: 2, ReadAheadBytes: 1024})
	jobs := &countingJobs{Jobs: h.tasks}
	h.jobs = jobs
	h.startReceiver()
	p, target := h.partitions[0], h.targets[0]
	target.setHold(true)
	p.write(1000, 100)
	h.startSource()
	s := h.awaitStatus("window full", func(s PipelineStatus) bool { return s.LimitedBy == LimitedByRemote && s.InFlightBatches == 2 })
	if s.ReadAheadBytes > 3*1024 {
		t.Fatalf("read %d bytes ahead", s.ReadAheadBytes)
	}
	before := jobs.submitted.Load()
	for range 50 {
		p.write(10, 100)
	}
	if after := jobs.submitted.Load(); after != before {
		t.Fatalf("%d jobs were submitted while the window was full", after-before)
	}
	target.setHold(false)
	target.mustEqual(t, p)
}

func TestLimitedByScheduling(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1})
	h.startReceiver()
	h.startSource()
	h.awaitStatus("connected", func(s PipelineStatus) bool { return s.State == StateShipping })
	unblock := h.blockPool()
	p := h.partitions[0]
	p.write(10, 100)
	h.awaitStatus("limited by scheduling", func(s PipelineStatus) bool { return s.LimitedBy == LimitedByScheduling })
	unblock()
	h.targets[0].mustEqual(t, p)
}

func TestQueueFullIsRetried(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1})
	h.jobs = &refusingJobs{Jobs: h.tasks, refuse: 5}
	h.startReceiver()
	h.startSource()
	p := h.partitions[0]
	p.write(10, 100)
	h.targets[0].mustEqual(t, p)
	if s := h.source.Status()[0]; s.Failures < 5 || s.LastError == "" {
		t.Fatalf("the refused submissions are not told: %+v", s)
	}
}

// refusingJobs refuses a number of submissions.
type refusingJobs struct {
	Jobs
	refuse int
}

func (r *refusingJobs) Submit(ctx context.Context, code tasks.Code, key string, f threadpool.Func) (*tasks.Job, error) {
	if r.refuse > 0 {
		r.refuse--
		return nil, threadpool.ErrQueueFull
	}
	return r.Jobs.Submit(ctx, code, key, f)
}

func TestPermanentRefusals(t *testing.T) {
	for name, o := range map[string]ReceiverOptions{
		"the numbers of partitions differ": {ClusterID: clusterB, PartitionCount: 7},
		"same cluster":                     {ClusterID: clusterA, PartitionCount: 1},
	} {
		h := newHarness(t, 1, Options{})
		h.startReceiverWith(o)
		h.startSource()
		s := h.awaitStatus(name, func(s PipelineStatus) bool { return s.State == StateRefused })
		if !strings.Contains(s.LastError, name) || s.RetryAt.Before(time.Now().Add(2*time.Second)) || s.RetryAt.After(time.Now().Add(DefaultRefusedRetry)) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestRemoteAheadOfThisClusterIsRefused(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.targets[0].progress = 100
	h.startReceiver()
	h.partitions[0].write(10, 10)
	h.startSource()
	s := h.awaitStatus("refused", func(s PipelineStatus) bool { return s.State == StateRefused })
	if !strings.Contains(s.LastError, "another history") {
		t.Fatalf("%+v", s)
	}
}

func TestCollectedLogIsToldAndNeverSkipped(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1})
	h.startReceiver()
	p := h.partitions[0]
	p.write(100, 100)
	h.must(p.log.Release(50))
	if p.log.FirstIndex() != 51 {
		t.Fatalf("the log starts at %d", p.log.FirstIndex())
	}
	h.startSource()
	s := h.awaitStatus("log collected", func(s PipelineStatus) bool { return s.State == StateLogCollected })
	if !strings.Contains(s.LastError, "checkpoint") || h.targets[0].progress != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestRotatesAddressesAndFollowsTheLeader(t *testing.T) {
	h := newHarness(t, 1, Options{Remotes: []Remote{{Name: "backup", Addresses: []string{"down:1", node}}}})
	follower := newTestTarget()
	follower.follower = true
	h.startReceiver()
	real := h.addresses[node]
	leaderName := "leader:1"
	h.setAddress(leaderName, real)
	server, receiver := h.server, h.receiver
	h.startReceiverWith(ReceiverOptions{
		ClusterID: clusterB, PartitionCount: 1,
		Target:        func(uint32) Target { return follower },
		LeaderAddress: func(uint64) string { return leaderName },
	})
	defer func() {
		ctx := context.Background()
		h.must(server.Stop(ctx))
		h.must(receiver.Stop(ctx))
	}()
	h.startSource()
	p := h.partitions[0]
	p.write(10, 10)
	h.targets[0].mustEqual(t, p)
	h.faults.mu.Lock()
	opened := h.faults.opened
	h.faults.mu.Unlock()
	if len(opened) < 3 || opened[0] != "down:1" || opened[1] != node || opened[2] != leaderName {
		t.Fatalf("tried %v", opened)
	}
	h.stopSource()
}

func TestPauseAndResume(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	p.write(10, 10)
	h.awaitStatus("confirmed", func(s PipelineStatus) bool { return s.Confirmed == 10 })
	h.must(h.source.Pause("backup"))
	h.awaitStatus("paused", func(s PipelineStatus) bool { return s.State == StatePaused && s.LimitedBy == LimitedByNothing })
	p.write(10, 10)
	if s := h.source.Status()[0]; s.Lag.Decrees != 10 || target.progress != 10 {
		t.Fatalf("paused: %+v, the remote has %d", s, target.progress)
	}
	h.must(h.source.Resume("backup"))
	target.mustEqual(t, p)
	if err := h.source.Pause("nobody"); !errors.Is(err, ErrUnknownRemote) {
		t.Fatalf("pause of an unknown remote: %v", err)
	}
	if _, err := h.source.LagSample("nobody"); !errors.Is(err, ErrUnknownRemote) {
		t.Fatalf("sample of an unknown remote: %v", err)
	}
}

func TestOnlyTheLeaderShips(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.partitions[0].follower = true
	h.startReceiver()
	h.startSource()
	p := h.partitions[0]
	h.awaitStatus("not leader", func(s PipelineStatus) bool { return s.State == StateNotLeader })
	p.write(10, 10)
	p.setFollower(false)
	h.targets[0].mustEqual(t, p)
	p.setFollower(true)
	p.write(1, 10)
	h.awaitStatus("not leader again", func(s PipelineStatus) bool { return s.State == StateNotLeader })
}

func TestBusyRemoteIsRetried(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.targets[0].busy = 5
	h.startReceiver()
	h.startSource()
	p := h.partitions[0]
	p.write(10, 10)
	h.targets[0].mustEqual(t, p)
}

func TestSilentRemoteIsLeft(t *testing.T) {
	h := newHarness(t, 1, Options{AckTimeout: 20 * time.Millisecond})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	target.setHold(true)
	p.write(10, 10)
	h.awaitStatus("given up", func(s PipelineStatus) bool {
		return s.Failures > 0 && strings.Contains(s.LastError, "confirmed nothing")
	})
	target.setHold(false)
	target.mustEqual(t, p)
}

func TestRemoteThatNeverGreetsIsLeft(t *testing.T) {
	h := newHarness(t, 1, Options{HelloTimeout: 20 * time.Millisecond})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	defer listener.Close()
	h.setAddress(node, listener.Addr().String())
	h.startSource()
	h.awaitStatus("given up", func(s PipelineStatus) bool {
		return s.Failures > 1 && strings.Contains(s.LastError, errNoHello.Error())
	})
	h.stopSource()
}

func TestStopDoesNotWaitForTheRemote(t *testing.T) {
	for name, prepare := range map[string]func(h *harness){
		"absent": func(*harness) {},
		"stuck": func(h *harness) {
			h.startReceiver()
			h.targets[0].setHold(true)
		},
		"pool blocked": func(h *harness) {
			h.startReceiver()
			h.tb.Cleanup(h.blockPool())
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 1, Options{TailBytes: -1, BatchBytes: 1024})
			h.partitions[0].write(2000, 1000)
			prepare(h)
			h.startSource()
			h.awaitStatus("begun", func(s PipelineStatus) bool { return s.State != StateStopped })
			started := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			h.must(h.source.Stop(ctx))
			h.must(h.source.Stop(ctx))
			if d := time.Since(started); d > 2*time.Second {
				t.Fatalf("stopping took %v", d)
			}
			if s := h.source.Status()[0]; s.State != StateStopped {
				t.Fatalf("stopped: %+v", s)
			}
			if err := h.source.Start(context.Background()); !errors.Is(err, ErrStarted) {
				t.Fatalf("start after stop: %v", err)
			}
		})
	}
}

func TestTwoClustersDoNotKeepEachOtherBusy(t *testing.T) {
	h := newHarness(t, 1, Options{RecordInterval: time.Millisecond})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	// Every batch that arrives here from the other side is a decree that is not shipped back.
	for range 1000 {
		p.append(p.foreign())
	}
	p.write(1, 1)
	target.mustEqual(t, p)
	if target.batches > 1 {
		t.Fatalf("%d batches for one mutation", target.batches)
	}
}

func TestMetricsAndJSON(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	h := newHarness(t, 2, Options{Registerer: registry})
	h.startReceiverWith(ReceiverOptions{ClusterID: clusterB, PartitionCount: 2, Registerer: registry})
	h.startSource()
	p := h.partitions[1]
	p.write(10, 10)
	h.targets[1].mustEqual(t, p)
	families, err := registry.Gather()
	h.must(err)
	found := map[string]bool{}
	for _, f := range families {
		found[f.GetName()] = true
	}
	for _, name := range []string{"replicanode_duplication_lag_seconds", "replicanode_duplication_state", "replicanode_duplication_received_batches_total"} {
		if !found[name] {
			t.Errorf("metric %s is missing", name)
		}
	}
	text, err := json.Marshal(h.source.Status())
	h.must(err)
	var back []PipelineStatus
	h.must(json.Unmarshal(text, &back))
	if len(back) != 2 || back[1].Remote != "backup" || back[1].State == StateStopped {
		t.Fatalf("%s", text)
	}
	var s State
	if err := s.UnmarshalText([]byte("dancing")); err == nil {
		t.Error("an unknown state was parsed")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	p := newTestPartition(t, 0)
	good := func() Options {
		return Options{
			ClusterID: 1, Partitions: []Partition{p}, Remotes: []Remote{{Name: "a", Addresses: []string{"h:1"}}},
			Network: &faults{}, Jobs: &countingJobs{},
		}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Options){
		"ClusterID":   func(o *Options) { o.ClusterID = 0 },
		"Network":     func(o *Options) { o.Network = nil },
		"BatchBytes":  func(o *Options) { o.BatchBytes = 1 << 30 },
		"WindowBytes": func(o *Options) { o.WindowBytes = -1 },
		"RetryMax":    func(o *Options) { o.RetryMin = time.Hour },
		"host:port":   func(o *Options) { o.Remotes[0].Addresses = []string{"h"} },
		"no address":  func(o *Options) { o.Remotes[0].Addresses = nil },
		"characters":  func(o *Options) { o.Remotes[0].Name = "" },
		"letters":     func(o *Options) { o.Remotes[0].Name = "a/b" },
		"twice":       func(o *Options) { o.Remotes = append(o.Remotes, o.Remotes[0]) },
		"fail mode":   func(o *Options) { o.Remotes[0].FailMode = 9 },
		"partition 0": func(o *Options) { o.Partitions = append(o.Partitions, p); o.PartitionCount = 2 },
	} {
		o := good()
		spoil(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if _, err := NewReceiver(ReceiverOptions{}); err == nil {
		t.Error("a receiver without a cluster was made")
	}
}

func TestSourceWithoutRemotes(t *testing.T) {
	p := newTestPartition(t, 0)
	s, err := New(Options{ClusterID: 1, Partitions: []Partition{p}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.write(3, 3)
	if confirmed, known := s.Confirmed(0); !known || confirmed != ^uint64(0) {
		t.Fatalf("confirmed %d, %v", confirmed, known)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestConfirmationsThatCannotBeAreRefused(t *testing.T) {
	p := &pipeline{o: &Options{}, feed: &feed{partition: newTestPartition(t, 0)}}
	if err := p.acknowledge(1); !errors.Is(err, errAhead) {
		t.Fatalf("a confirmation of a decree that was never made: %v", err)
	}
	err := error(&refusalError{reason: peerpb.RefusalReason_REFUSAL_REASON_BUSY, detail: "x"})
	if permanent(err) || !permanent(errSameCluster) {
		t.Fatal("permanent refusals are told apart wrongly")
	}
}

// A job that was reading while the pipeline was rewound, or fast-forwarded, hands over what does not follow any more.
func TestBatchReadBeforeARewindIsDropped(t *testing.T) {
	p := &pipeline{o: &Options{ReadAheadBytes: 1 << 20}, wake: make(chan struct{}, 1)}
	p.cursor, p.clean = 10, 10
	for _, position := range []uint64{5, 15} {
		b := &batch{last: 20}
		b.add(20, 1, []byte("x"))
		if p.hand(b, position, 1) || len(p.queue) != 0 {
			t.Fatalf("a batch that follows decree %d was taken at decree 10", position)
		}
	}
	b := &batch{last: 20}
	b.add(20, 1, []byte("x"))
	if !p.hand(b, 10, 1) || p.readTo() != 20 {
		t.Fatal("a batch that follows was not taken")
	}
}

// recordingHandler keeps the messages at or above a level.
type recordingHandler struct {
	slog.Handler
	least slog.Level
	mu    sync.Mutex
	lines []string
}

func (r *recordingHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= r.least
}
func (r *recordingHandler) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r *recordingHandler) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := record.Message
	record.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	r.lines = append(r.lines, line)
	return nil
}

func (r *recordingHandler) count(part string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func TestPauseOutlivesARestart(t *testing.T) {
	var kept []string
	failure := errors.New("no space")
	var fails bool
	save := func(remotes []string) error {
		if fails {
			return failure
		}
		kept = remotes
		return nil
	}
	h := newHarness(t, 1, Options{SavePaused: save})
	h.startReceiver()
	h.startSource()
	h.must(h.source.Pause("backup"))
	if len(kept) != 1 || kept[0] != "backup" {
		t.Fatalf("kept %v", kept)
	}
	h.stopSource()
	h.o.Paused = kept
	h.startSource()
	h.partitions[0].write(10, 100)
	h.awaitStatus("still paused", func(s PipelineStatus) bool { return s.State == StatePaused && s.Lag.Decrees == 10 })
	fails = true
	if err := h.source.Resume("backup"); !errors.Is(err, failure) {
		t.Fatalf("resume that cannot be remembered: %v", err)
	}
	h.awaitStatus("still paused", func(s PipelineStatus) bool { return s.State == StatePaused })
	fails = false
	h.must(h.source.Resume("backup"))
	h.targets[0].mustEqual(t, h.partitions[0])
	if len(kept) != 0 {
		t.Fatalf("kept %v after resume", kept)
	}
}

// Whoever has mended what made the remote refuse need not wait; and once all is well, the failure is not shown any more.
func TestResumeTriesAtOnceAndRecoveryClearsTheError(t *testing.T) {
	h := newHarness(t, 1, Options{RefusedRetry: time.Hour})
	h.startReceiverWith(ReceiverOptions{ClusterID: clusterB, PartitionCount: 7})
	h.startSource()
	h.partitions[0].write(10, 100)
	s := h.awaitStatus("refused", func(s PipelineStatus) bool { return s.State == StateRefused })
	if !strings.Contains(s.LastError, "the source has 1, the remote 7") {
		t.Errorf("error: %s", s.LastError)
	}
	h.stopReceiver()
	h.startReceiver()
	h.must(h.source.Resume("backup"))
	h.targets[0].mustEqual(t, h.partitions[0])
	h.awaitStatus("no error", func(s PipelineStatus) bool {
		return s.State == StateShipping && s.LastError == "" && s.LastErrorAt.IsZero() && s.Failures > 0
	})
	// The same without anything left to ship.
	h.stopReceiver()
	h.awaitStatus("an error", func(s PipelineStatus) bool { return s.LastError != "" })
	h.startReceiver()
	h.awaitStatus("no error", func(s PipelineStatus) bool { return s.State == StateShipping && s.LastError == "" })
}

// A remote that is away is one piece of news, however many partitions miss it.
func TestOneWarningPerRemote(t *testing.T) {
	source, receiver := &recordingHandler{least: slog.LevelWarn}, new(recordingHandler)
	h := newHarness(t, 8, Options{RefusedRetry: time.Hour, Logger: slog.New(source)})
	h.startReceiverWith(ReceiverOptions{ClusterID: clusterB, PartitionCount: 9, Logger: slog.New(receiver)})
	h.startSource()
	for h.failures() < 8 {
		h.awaitStatus("refused", func(s PipelineStatus) bool { return s.State == StateRefused })
	}
	if n := source.count("interrupted"); n != 1 {
		t.Errorf("%d warnings for one remote that refuses", n)
	}
	if n := receiver.count("refused cluster=10 partition="); n != 8 {
		t.Errorf("%d lines name who was refused", n)
	}
}

func (h *harness) failures() (n uint64) {
	for _, s := range h.source.Status() {
		n += s.Failures
	}
	return n
}
