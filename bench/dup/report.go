package dup

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"replicanode/bench/report"
	"replicanode/tasks"
)

// Result is what was measured under one policy at one rate. docs/benchmarks.md says what each figure means and leaves out.
type Result struct {
	// Name is that of the policy.
	Name   string  `json:"name"`
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

	// The throttled part, of policies with the controller only.
	Throttled *Throttled `json:"throttled,omitempty"`

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

// Throttled is what the controller did while the backup was slow. It is to leave all priorities alone while the remote limits the
// lag: no higher one would help.
type Throttled struct {
	// LagMsMax is the greatest lag.
	LagMsMax float64 `json:"lag_ms_max"`
	// LimitedBy counts the samples by what the controller was told to limit the lag.
	LimitedBy map[string]int `json:"limited_by"`
	// LevelsMoved counts the priorities that the controller moved, LowMoved the changes of LOW's part.
	LevelsMoved int `json:"levels_moved"`
	LowMoved    int `json:"low_moved"`
}

// Report is the whole experiment.
type Report struct {
	Runs    []Result       `json:"runs"`
	Config  Config         `json:"config"`
	Machine report.Machine `json:"machine"`
}

// MarshalJSON writes the runs as results, too, as all benchmarks name what they measured.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	return json.Marshal(struct {
		plain
		Results []Result `json:"results"`
	}{plain(r), r.Runs})
}

// Names returns the names of all results.
func Names() []string {
	var names []string
	for _, p := range Policies() {
		names = append(names, p.Name)
	}
	return names
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
	notes = append(notes, r.adaptiveNotes()...)
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

// adaptiveNotes compare the policies with the controller to the best ones without that had the same maintenance.
func (r Report) adaptiveNotes() []string {
	static := map[string]bool{}
	for _, p := range r.Config.PolicyTable {
		static[p.Name] = p.Storm && !p.Adaptive
	}
	var notes []string
	for _, run := range r.Runs {
		if run.Throttled == nil {
			continue
		}
		var best *Result
		for i := range r.Runs {
			if s := &r.Runs[i]; s.QPS == run.QPS && static[s.Policy] && (best == nil || s.LagMs.P99 < best.LagMs.P99) {
				best = s
			}
		}
		if best != nil {
			notes = append(notes, fmt.Sprintf("%s at %g/s: lag p99 %s ms; the best static policy, %s, has %s ms.", run.Policy, run.QPS,
				report.Millis(run.LagMs.P99), best.Policy, report.Millis(best.LagMs.P99)))
		}
		notes = append(notes, fmt.Sprintf("%s at %g/s with a throttled backup: lag up to %s ms, limited by %s; priorities moved: %d, LOW's part: %d.", run.Policy, run.QPS,
			report.Millis(run.Throttled.LagMsMax), parts(run.Throttled.LimitedBy), run.Throttled.LevelsMoved, run.Throttled.LowMoved))
	}
	return notes
}

// parts writes counts as parts of all, by name.
func parts(counts map[string]int) string {
	total := 0
	for _, n := range counts {
		total += n
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s %d %%", name, 100*counts[name]/total))
	}
	return strings.Join(out, ", ")
}
