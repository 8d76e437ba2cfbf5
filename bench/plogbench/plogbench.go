// Package plogbench measures write-ahead logs: ours, the bare disk, and any other that implements Subject.
//
// Every append is synced when it returns. All subjects see the same records, the same batches and the same regular
// trimming. The logs that are appended to are open together and take turns of a fraction of a second, which all count; what is read or opened
// is measured one after the other, and the median round counts. So a noisy machine is noisy for all.
//
// A run needs a folder on the disk that is to be measured and leaves nothing in it.
package plogbench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options tune a run. The zero value is usable.
type Options struct {
	// Dir is where the logs are made. Empty: the system's folder for temporary files.
	Dir string
	// Round is how long one subject is measured in a round, 1 ms to 1 h. 0: 1 s.
	Round time.Duration
	// Rounds is how often, 1 to 1000. 0: 3.
	Rounds int
	// ReadBytes is the size of the logs that are read. 0: 256 MiB.
	ReadBytes int64
	// OpenBytes is the size of the log that is opened. 0: 1 GiB.
	OpenBytes int64
	// Only limits the run to the scenarios of these names. Empty: all.
	Only []string
	// Subjects are measured besides our log and the bare disk.
	Subjects []Factory
	// Progress is told what is being measured. Nil: nobody is.
	Progress func(what string)
}

// EnsureDefaults fills what is zero.
func (o *Options) EnsureDefaults() {
	o.Dir = cmp.Or(o.Dir, os.TempDir())
	o.Round = cmp.Or(o.Round, time.Second)
	o.Rounds = cmp.Or(o.Rounds, 3)
	o.ReadBytes = cmp.Or(o.ReadBytes, 256<<20)
	o.OpenBytes = cmp.Or(o.OpenBytes, 1<<30)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
}

// Validate reports the first field out of range. It expects EnsureDefaults to have run.
func (o *Options) Validate() error {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("no measurement %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	switch {
	case o.Round < time.Millisecond || o.Round > time.Hour:
		return fmt.Errorf("round of %v is not within 1ms and 1h", o.Round)
	case o.Rounds < 1 || o.Rounds > 1000:
		return fmt.Errorf("%d rounds are not within 1 and 1000", o.Rounds)
	case o.ReadBytes < 0 || o.OpenBytes < 0:
		return fmt.Errorf("logs of %d and %d bytes: must not be negative", o.ReadBytes, o.OpenBytes)
	}
	return nil
}

// Result is one line of the table.
type Result struct {
	Name        string  `json:"name"`     // as Scenario
	Scenario    string  `json:"scenario"` // append, appenders, logs, read_cached, read_cold, open
	Subject     string  `json:"subject"`
	RecordBytes int     `json:"record_bytes"`
	Batch       int     `json:"batch"`
	Appenders   int     `json:"appenders"`
	Logs        int     `json:"logs"`
	Records     uint64  `json:"records"` // of all rounds, or of the median one
	PerSecond   float64 `json:"records_per_second"`
	MBPerSecond float64 `json:"mb_per_second"` // of data, 10^6 bytes
	P50         float64 `json:"p50_ms"`        // of one call
	P99         float64 `json:"p99_ms"`
	Max         float64 `json:"max_ms"`
	Allocs      float64 `json:"allocs_per_record"`
}

// String formats r for a terminal.
func (r Result) String() string {
	return fmt.Sprintf("%-12s %-12s %5d B  batch %3d  %2d appenders  %2d logs  %12.0f records/s  %8.1f MB/s  p50 %8.3f ms  p99 %8.3f ms  %5.2f allocs",
		r.Scenario, r.Subject, r.RecordBytes, r.Batch, r.Appenders, r.Logs, r.PerSecond, r.MBPerSecond, r.P50, r.P99, r.Allocs)
}

// scenario is one thing to measure.
type scenario struct {
	Result
	subjects []Factory
	// Either the subjects are open together and append in turns,
	open func(ctx context.Context, sc *scenario, f Factory, dir string) (*contestant, error)
	// or one is measured after the other.
	measure func(ctx context.Context, o *Options, sc *scenario, f Factory, dir string) (Result, error)
}

// Run measures everything and returns the results in a fixed order. It ends early when ctx does.
func Run(ctx context.Context, o Options) ([]Result, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var out []Result
	for _, sc := range scenarios(&o) {
		if len(o.Only) > 0 && !slices.Contains(o.Only, sc.Scenario) {
			continue
		}
		run := oneByOne
		if sc.open != nil {
			run = inTurns
		}
		rs, err := run(ctx, &o, &sc)
		if err != nil {
			return out, fmt.Errorf("measure %s: %w", sc.Scenario, err)
		}
		out = append(out, rs...)
	}
	return out, nil
}

// Names returns the names of all results.
func Names() []string {
	var names []string
	for _, sc := range scenarios(&Options{}) {
		if !slices.Contains(names, sc.Scenario) {
			names = append(names, sc.Scenario)
		}
	}
	return names
}

// inTurns measures subjects that are open together; all rounds count.
func inTurns(ctx context.Context, o *Options, sc *scenario) (rs []Result, err error) {
	totals := make([]measured, len(sc.subjects))
	for i := range totals {
		totals[i].h = newHistogram()
	}
	for round := range o.Rounds {
		sc.say(o, "in turns", round)
		if err := inFolder(ctx, o, func(dir string) error { return contest(ctx, o, sc, dir, totals) }); err != nil {
			return nil, err
		}
	}
	for i := range totals {
		rs = append(rs, totals[i].result(sc, sc.subjects[i].Name))
	}
	return rs, nil
}

// oneByOne measures one subject after the other; the median round counts.
func oneByOne(ctx context.Context, o *Options, sc *scenario) (out []Result, err error) {
	rounds := make([][]Result, len(sc.subjects))
	for round := range o.Rounds {
		for i, f := range sc.subjects {
			sc.say(o, f.Name, round)
			if err := inFolder(ctx, o, func(dir string) error {
				r, err := sc.measure(ctx, o, sc, f, filepath.Join(dir, "log"))
				r.Name, r.Subject = sc.Scenario, f.Name
				rounds[i] = append(rounds[i], r)
				return err
			}); err != nil {
				return nil, fmt.Errorf("%s: %w", f.Name, err)
			}
		}
	}
	for _, rs := range rounds {
		slices.SortFunc(rs, func(a, b Result) int { return cmp.Compare(a.PerSecond, b.PerSecond) })
		out = append(out, rs[len(rs)/2])
	}
	return out, nil
}

func (sc *scenario) say(o *Options, who string, round int) {
	o.Progress(fmt.Sprintf("%s %s, %d bytes, batch %d, round %d of %d", sc.Scenario, who, sc.RecordBytes, sc.Batch, round+1, o.Rounds))
}

// inFolder calls run with a folder that goes with its end.
func inFolder(ctx context.Context, o *Options, run func(dir string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.Dir, "plogbench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	return run(dir)
}

func scenarios(o *Options) []scenario {
	ours := Ours(nil)
	logs := append([]Factory{ours}, o.Subjects...)
	var out []scenario
	for _, size := range []int{100, 1024} {
		for _, batch := range []int{1, 64} {
			out = append(out, scenario{open: openLog, subjects: append([]Factory{bareAppend()}, logs...),
				Result: Result{Scenario: "append", RecordBytes: size, Batch: batch, Appenders: 1, Logs: 1}})
		}
	}
	out = append(out,
		scenario{open: openLog, subjects: logs,
			Result: Result{Scenario: "appenders", RecordBytes: 100, Batch: 1, Appenders: 64, Logs: 1}},
		scenario{open: openLogs, subjects: []Factory{ours, {Name: "each by itself", Open: ours.Open}},
			Result: Result{Scenario: "logs", RecordBytes: 100, Batch: 1, Appenders: 64, Logs: 64}})
	for _, size := range []int{100, 1024} {
		out = append(out, scenario{measure: measureReadCached, subjects: logs, Result: Result{Scenario: "read_cached", RecordBytes: size, Logs: 1}})
	}
	return append(out,
		scenario{measure: measureReadCold, subjects: append([]Factory{bareRead(ours)}, logs...),
			Result: Result{Scenario: "read_cold", RecordBytes: 1024, Logs: 1}},
		scenario{measure: measureOpen, subjects: []Factory{ours}, Result: Result{Scenario: "open", RecordBytes: 1024, Logs: 1}})
}
