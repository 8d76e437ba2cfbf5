package duplication

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

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

// An attempt that began before the cure may fail after it; Resume means that another one follows at once.
func TestResumeOutlastsTheAttemptUnderWay(t *testing.T) {
	h := newHarness(t, 1, Options{RetryMin: time.Hour, RetryMax: time.Hour})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	defer listener.Close()
	h.setAddress(node, listener.Addr().String())
	h.startSource()
	h.partitions[0].write(10, 100)
	silent, err := listener.Accept()
	h.must(err)
	h.must(h.source.Resume("backup"))
	h.startReceiver()
	h.must(silent.Close())
	h.targets[0].mustEqual(t, h.partitions[0])
}

func (h *harness) failures() (n uint64) {
	for _, s := range h.source.Status() {
		n += s.Failures
	}
	return n
}
