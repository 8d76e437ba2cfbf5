package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/bench/plogbench"
	"replicanode/bench/report"
	"replicanode/bench/sched"
	"replicanode/bench/simulate"
	"replicanode/node"
	"replicanode/plog"
)

// lines is a benchmark's result that is shown a line per measurement.
type lines[R fmt.Stringer] []R

// Write implements benchResult.
func (l lines[R]) Write(w io.Writer) error {
	for _, r := range l {
		if _, err := fmt.Fprintln(w, r); err != nil {
			return err
		}
	}
	return nil
}

func benchSched() *cli.Command {
	var d sched.Options
	d.EnsureDefaults()
	return &cli.Command{
		Name:  "sched",
		Usage: "what a task costs, how soon an urgent one starts, what LOW gets when the pool is full",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "only", Value: strings.Join(sched.Names(), ","), Usage: "a comma-separated `LIST` of measurements"},
			&cli.IntFlag{Name: "workers", Value: d.Workers, Usage: "slots"},
			&cli.IntFlag{Name: "tasks", Value: d.Tasks, Usage: "tasks that a cost is measured over"},
			&cli.IntFlag{Name: "samples", Value: d.Samples, Usage: "urgent tasks whose start is measured"},
			&cli.DurationFlag{Name: "saturation", Value: d.Saturation, Usage: "how long COMMON is kept saturated"},
			jsonFileFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := refuse(c, "only", "workers", "tasks", "samples", "saturation"); err != nil {
				return err
			}
			o := sched.Options{
				Only: strings.Split(c.String("only"), ","), Workers: c.Int("workers"), Tasks: c.Int("tasks"), Samples: c.Int("samples"),
				Saturation: c.Duration("saturation"), Progress: announce(c),
			}
			o.EnsureDefaults()
			if err := o.Validate(); err != nil {
				return usagef("bench sched: %v", err)
			}
			results, err := sched.Run(c.Context, o)
			config := map[string]any{"only": o.Only, "workers": o.Workers, "tasks": o.Tasks, "samples": o.Samples, "saturation_seconds": o.Saturation.Seconds()}
			return finishBench(c, lines[sched.Result](results), report.Document{Config: config, Machine: report.ThisMachine("."), Results: results}, err)
		},
	}
}

func benchPlog() *cli.Command {
	var d plogbench.Options
	d.EnsureDefaults()
	return &cli.Command{
		Name:  "plog",
		Usage: "the private log beside the bare disk: appends, many logs, reads, opening",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "only", Usage: "a comma-separated `LIST` of append, appenders, logs, read_cached, read_cold, open (default: all)"},
			&cli.DurationFlag{Name: "round", Value: d.Round, Usage: "how long each log is measured in a round"},
			&cli.IntFlag{Name: "rounds", Value: d.Rounds, Usage: "how often: all rounds of appends count, the median one of the rest"},
			&cli.StringFlag{Name: "dir", Value: os.TempDir(), Action: existingFolder, DefaultText: "the system's temporary folder", Usage: "`FOLDER` on the disk to be measured"},
			jsonFileFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := refuse(c, "round", "rounds", "dir"); err != nil {
				return err
			}
			return runPlogBench(c)
		},
	}
}

func runPlogBench(c *cli.Context) error {
	dir, err := filepath.Abs(c.String("dir"))
	if err != nil {
		return fmt.Errorf("find folder %s: %w", c.String("dir"), err)
	}
	o := plogbench.Options{Dir: dir, Round: c.Duration("round"), Rounds: c.Int("rounds"), Progress: announce(c)}
	if only := c.String("only"); only != "" {
		o.Only = strings.Split(only, ",")
	}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return usagef("bench plog: %v", err)
	}
	// One syncer for all logs is what a node has; its own for each is what it is compared with.
	syncer := plog.NewSyncer(plog.SyncerOptions{})
	if err := syncer.Start(c.Context); err != nil {
		return fmt.Errorf("start the syncer: %w", err)
	}
	shared := plogbench.Ours(syncer)
	shared.Name = "plog shared syncer"
	o.Subjects = append(o.Subjects, shared)
	results, err := plogbench.Run(c.Context, o)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), 10*time.Second)
	defer cancel()
	err = errors.Join(err, syncer.Stop(ctx))
	config := map[string]any{"only": o.Only, "round_seconds": o.Round.Seconds(), "rounds": o.Rounds}
	return finishBench(c, lines[plogbench.Result](results), report.Document{Config: config, Machine: report.ThisMachine(dir), Results: results}, err)
}

func benchSimulate() *cli.Command {
	var d simulate.Options
	d.EnsureDefaults()
	return &cli.Command{
		Name:  "simulate",
		Usage: "the scheduler's rules in virtual time, for clusters of any size",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "nodes", Value: d.Nodes, Usage: "nodes"},
			&cli.IntFlag{Name: "partitions", Usage: "partitions of all nodes (default: 64 a node)"},
			&cli.IntFlag{Name: "workers", Value: d.Workers, Usage: "slots of each node"},
			&cli.DurationFlag{Name: "length", Value: d.Length, Usage: "virtual time"},
			&cli.Uint64Flag{Name: "seed", Value: d.Seed, Usage: "the same seed gives the same figures"},
			&cli.StringFlag{Name: "policies", Usage: "a comma-separated `LIST` of those to compare (default: all of the workload, else common,strict,parity,low)"},
			&cli.StringFlag{Name: "workload", Usage: "JSON `FILE` of what arrives, see docs/benchmarks.md (default: a node's usual work)"},
			jsonFileFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := refuse(c, "nodes", "partitions", "workers", "length", "seed"); err != nil {
				return err
			}
			o := simulate.Options{Partitions: c.Int("partitions"), Length: c.Duration("length"), Seed: c.Uint64("seed")}
			// What was not asked for is left to the workload.
			if c.IsSet("nodes") {
				o.Nodes = c.Int("nodes")
			}
			if c.IsSet("workers") {
				o.Workers = c.Int("workers")
			}
			if name := c.String("workload"); name != "" {
				var err error
				if o.Workload, err = readWorkload(name); err != nil {
					return err
				}
			}
			o.EnsureDefaults()
			if names := c.String("policies"); names != "" {
				var err error
				if o.Policies, err = namedPolicies(o.Policies, strings.Split(names, ",")); err != nil {
					return &node.FlagError{Flag: "policies", Value: names, Reason: err.Error()}
				}
			}
			if err := o.Validate(); err != nil {
				return usagef("%v", err)
			}
			progress := report.NewProgress(c.App.ErrWriter, 1)
			progress.Step("simulating")
			results, err := simulate.Run(c.Context, o)
			progress.Close()
			return finishBench(c, simulated(results), report.Document{Config: o, Machine: report.ThisMachine("."), Results: results}, err)
		},
	}
}

// namedPolicies are those of all that are named, in the order of the names.
func namedPolicies(all []simulate.Policy, names []string) ([]simulate.Policy, error) {
	var out []simulate.Policy
	for _, name := range names {
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(all, func(p simulate.Policy) bool { return p.Name == name })
		if i < 0 {
			known := make([]string, len(all))
			for i, p := range all {
				known[i] = p.Name
			}
			return nil, fmt.Errorf("there is no policy %q; there are %s", name, strings.Join(known, ", "))
		}
		if slices.ContainsFunc(out, func(p simulate.Policy) bool { return p.Name == name }) {
			return nil, fmt.Errorf("policy %s is named twice", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func readWorkload(name string) (simulate.Workload, error) {
	file, err := os.Open(name)
	if err != nil {
		return simulate.Workload{}, &node.FlagError{Flag: "workload", Value: name, Reason: err.Error()}
	}
	defer file.Close()
	w, err := simulate.ReadWorkload(file)
	if err != nil {
		return simulate.Workload{}, &node.FlagError{Flag: "workload", Value: name, Reason: err.Error()}
	}
	return w, nil
}

type simulated []simulate.Result

// Write implements benchResult.
func (s simulated) Write(w io.Writer) error {
	var rows [][]string
	for _, r := range s {
		rows = append(rows, []string{
			r.Policy, r.Code, r.Priority.String(), number(r.Submitted), number(r.Finished),
			threeDigits(r.WaitMs.P50), threeDigits(r.WaitMs.P99), threeDigits(r.WaitMs.Max), threeDigits(r.OldestMs),
		})
	}
	return table(w, "POLICY CODE PRIORITY SUBMITTED FINISHED WAIT-P50-MS WAIT-P99-MS WAIT-MAX-MS OLDEST-WAITING-MS", rows)
}

// threeDigits shows v with three digits or as a whole number, never with an exponent.
func threeDigits(v float64) string {
	if v >= 1000 || v < 0.001 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// refuse refuses stray words and explicit zeros.
func refuse(c *cli.Context, flags ...string) error {
	if err := noArguments(c); err != nil {
		return err
	}
	return refuseZero(c, flags...)
}

// existingFolder checks the value of --dir.
func existingFolder(_ *cli.Context, dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return &node.FlagError{Flag: "dir", Value: dir, Reason: "is not a folder; give one on the disk to be measured"}
	}
	return nil
}

// announce shows what is being measured, one line each.
func announce(c *cli.Context) func(what string) {
	return func(what string) { fmt.Fprintln(c.App.ErrWriter, what) }
}
