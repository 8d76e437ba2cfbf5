package duplication

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

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
