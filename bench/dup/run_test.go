package dup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"replicanode/internal/fixture"
	"replicanode/tasks"
)

// nodesLeft lists the processes whose command line names dir.
func nodesLeft(t *testing.T, dir string) (left []string) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(dir)) {
			left = append(left, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}

func TestExperiment(t *testing.T) {
	binary, dir := fixture.Program(t), t.TempDir()
	small := Options{
		Binary: binary, Dir: dir, QPS: []float64{500}, Partitions: 2, Workers: 2, Connections: 2, Keys: 1000,
		Seconds: 1, AwaySeconds: 0.2, CatchUpSeconds: 5, FailoverSeconds: 0.5,
	}
	t.Run("all parts", func(t *testing.T) {
		o := small
		o.Policies = []string{"low", "common", "adaptive"}
		o.ThrottleSeconds = 1
		var progress bytes.Buffer
		rep, err := Run(context.Background(), o, &progress)
		if err != nil {
			t.Fatalf("%v\n%s", err, progress.String())
		}
		for _, r := range rep.Runs {
			if r.Writes == 0 || r.WriteErrors != 0 || r.LagMs.Max <= 0 || r.WriteMs.P50 <= 0 || r.LagMs.P50 > r.LagMs.P99 {
				t.Errorf("%+v", r)
			}
			// 1000 keys, and four parts of load.
			if r.AckedAtFailover < 1000+r.Writes || r.LostAtFailover > r.AckedAtFailover-1000 {
				t.Errorf("%s: %d of %d lost", r.Policy, r.LostAtFailover, r.AckedAtFailover)
			}
			if _, ok := r.TaskWaitMs[string(tasks.LoadPrivateLog)]; !ok {
				t.Errorf("%s: task waits %v", r.Policy, r.TaskWaitMs)
			}
		}
		for _, r := range rep.Runs {
			if slow := r.Throttled; (slow != nil) != (r.Policy == "adaptive") {
				t.Errorf("%s: throttled part %+v", r.Policy, slow)
			} else if slow != nil && (len(slow.LimitedBy) == 0 || slow.LagMsMax < 100 || slow.LevelsMoved != 0) {
				t.Errorf("throttled part %+v", slow)
			}
		}
		if len(rep.Runs) != 3 || rep.Runs[0].CheckpointsDone == 0 || rep.Runs[0].CheckpointsDone != rep.Runs[1].CheckpointsDone {
			t.Errorf("the maintenance differs: %+v", rep.Runs)
		}
		if !strings.Contains(progress.String(), "[11/13] adaptive at 500/s: backup throttled") {
			t.Errorf("progress:\n%s", progress.String())
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		o := small
		o.Policies, o.Seconds = []string{"common"}, 600
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err := Run(ctx, o, cancelAt{"steady", cancel})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	})
	if left := nodesLeft(t, dir); len(left) != 0 {
		t.Errorf("nodes run on: %v", left)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("folders are left: %v, %v", left, err)
	}
}

// cancelAt interrupts the run soon after its progress shows a word.
type cancelAt struct {
	word   string
	cancel func()
}

func (c cancelAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.word)) {
		time.AfterFunc(100*time.Millisecond, c.cancel)
	}
	return len(p), nil
}
