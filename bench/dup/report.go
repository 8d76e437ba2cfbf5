package dup

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"replicanode/bench/report"
	"replicanode/tasks"
)

// Result is what was measured under one policy at one rate. docs/benchmarks.md says what each figure means and leaves out.
type Result struct {
	Policy string  `json:"policy"`
	QPS    float64 `json:"qps"`

	// The steady part.
	LagMs           report.Quantiles            `json:"lag_ms"`
	BacklogMax      uint64                      `json:"backlog_max"` // decrees of all partitions; a decree may hold many writes
	BacklogBytesMax uint64                      `json:"backlog_bytes_max"`
	WriteMs         report.Quantiles            `json:"write_ms"`
	TaskWaitMs      map[string]report.Quantiles `json:"task_wait_ms"`
	// Writes were acknowledged, WriteErrors were not; SendDelayMs is how late the load generator itself was.
	Writes      uint64           `json:"writes"`
	WriteErrors uint64           `json:"write_errors"`
	SendDelayMs report.Quantiles `json:"send_delay_ms"`

	// The catch-up part. CatchupS is null when the backup did not catch up within the limit.
	CatchupS *float64 `json:"catchup_s"`

	// The failover part. LostAtFailover of AckedAtFailover acknowledged writes were not on the backup.
	LostAtFailover  uint64 `json:"lost_at_failover"`
	AckedAtFailover uint64 `json:"acked_at_failover"`

	// The maintenance of the steady part: checkpoints and what the garbage collection freed, until all that was asked for was
	// done, MaintenanceS after it was first asked for.
	CheckpointsDone int     `json:"checkpoints_done"`
	GCBytes         uint64  `json:"gc_bytes"`
	MaintenanceS    float64 `json:"maintenance_s"`
}

// Report is the whole experiment.
type Report struct {
	Runs    []Result       `json:"runs"`
	Config  Config         `json:"config"`
	Machine report.Machine `json:"machine"`
}

// Config is what was asked for, with the policies spelled out.
type Config struct {
	Options
	PolicyTable []Policy `json:"policy_table"`
	// CaughtUpMs is the lag below which the backup counts as caught up.
	CaughtUpMs float64 `json:"caught_up_ms"`
}

// Write prints the table.
func (r Report) Write(w io.Writer) error {
	t := report.NewTable("qps", "policy", "lag p50 ms", "lag p99 ms", "lag max ms", "backlog max", "write p50 ms", "write p99 ms", "write max ms",
		"catch-up s", "lost at failover", "checkpoints", "gc", "load wait p99 ms")
	for _, run := range r.Runs {
		catchup := fmt.Sprintf(">%g", r.Config.CatchUpSeconds)
		if run.CatchupS != nil {
			catchup = fmt.Sprintf("%.2f", *run.CatchupS)
		}
		t.Row(run.QPS, run.Policy, report.Millis(run.LagMs.P50), report.Millis(run.LagMs.P99), report.Millis(run.LagMs.Max), report.Bytes(run.BacklogBytesMax),
			report.Millis(run.WriteMs.P50), report.Millis(run.WriteMs.P99), report.Millis(run.WriteMs.Max),
			catchup, run.LostAtFailover, run.CheckpointsDone, report.Bytes(run.GCBytes),
			report.Millis(run.TaskWaitMs[string(tasks.LoadPrivateLog)].P99))
	}
	if err := t.Write(w); err != nil {
		return err
	}
	for _, note := range r.notes() {
		if _, err := fmt.Fprintln(w, "\n"+note); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}

// notes are what a reader must know before trusting the table.
func (r Report) notes() []string {
	var notes []string
	done := map[float64]map[int]bool{}
	for _, run := range r.Runs {
		if run.WriteErrors > 0 {
			notes = append(notes, fmt.Sprintf("%s at %g/s: %d writes failed.", run.Policy, run.QPS, run.WriteErrors))
		}
		if run.CheckpointsDone > 0 {
			if done[run.QPS] == nil {
				done[run.QPS] = map[int]bool{}
			}
			done[run.QPS][run.CheckpointsDone] = true
		}
	}
	for _, qps := range slices.Sorted(maps.Keys(done)) {
		if len(done[qps]) > 1 {
			notes = append(notes, fmt.Sprintf("At %g/s the policies did not finish the same maintenance: their figures cannot be compared.", qps))
		}
	}
	return notes
}
