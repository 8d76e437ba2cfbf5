package duplication

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"replicanode/peer/peerpb"
)

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

// Nor are there as many warnings as partitions when none can record what a remote has.
func TestOneWarningOfProgressThatIsNotRecorded(t *testing.T) {
	log := &recordingHandler{least: slog.LevelWarn}
	h := newHarness(t, 8, Options{RetryMax: time.Hour, Logger: slog.New(log)})
	h.startReceiver()
	for _, p := range h.partitions {
		p.readOnly = true
	}
	h.startSource()
	for i, p := range h.partitions {
		p.write(1, 10)
		h.targets[i].mustEqual(t, p)
	}
	h.awaitStatus("confirmed", func(PipelineStatus) bool {
		return !slices.ContainsFunc(h.source.Status(), func(s PipelineStatus) bool { return !s.Known || s.Confirmed == 0 })
	})
	h.stopSource() // records in every partition
	if n := log.count("cannot be recorded"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}
