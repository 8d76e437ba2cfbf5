package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"replicanode/bench/checkpointbench"
	"replicanode/bench/report"
)

func benchCheckpoint() *cli.Command {
	var d checkpointbench.Options
	d.EnsureDefaults()
	return &cli.Command{
		Name:  "checkpoint",
		Usage: "how fast checkpoints are made, beside badger's own backup, and what clients notice of them",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "only", Value: strings.Join(checkpointbench.Groups(), ","), Usage: "a comma-separated `LIST` of groups of measurements"},
			&cli.IntFlag{Name: "partitions", Value: d.Partitions, Usage: "partitions of all but the foreground's nodes"},
			&cli.IntFlag{Name: "keys", Value: d.Keys, Usage: "keys of all partitions together"},
			&cli.IntFlag{Name: "incremental-keys", Value: d.IncrementalKeys, Usage: "keys of all partitions together in the incremental group"},
			&cli.IntFlag{Name: "value-size", Value: d.ValueSize, Usage: "`BYTES` of a value"},
			&cli.DurationFlag{Name: "latency", Value: d.Latency, Usage: "how long the slow store takes for each call"},
			&cli.IntFlag{Name: "parallel", Value: d.Parallel, Usage: "checkpoints at once in the parallel runs"},
			&cli.IntFlag{Name: "workers", Value: d.Workers, Usage: "slots of the long pool"},
			&cli.IntFlag{Name: "rounds", Value: d.Rounds, Usage: "how often the local runs are repeated; the best counts"},
			&cli.Float64Flag{Name: "qps", Value: d.QPS, Usage: "foreground: requests a second, half of them writes"},
			&cli.Float64Flag{Name: "seconds", Value: d.Seconds, Usage: "foreground: how long at least it is measured with checkpoints, each between two parts without"},
			&cli.IntFlag{Name: "node-partitions", Value: d.NodePartitions, Usage: "foreground: partitions of each node; incremental: partitions"},
			&cli.StringFlag{Name: "dir", Action: existingFolder, Usage: "`FOLDER` on the disk to be measured (default: the system's temporary folder)"},
			jsonFileFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := refuse(c, "only", "partitions", "keys", "incremental-keys", "value-size", "latency", "parallel", "workers", "rounds", "qps", "seconds", "node-partitions"); err != nil {
				return err
			}
			o := checkpointbench.Options{
				Only: strings.Split(c.String("only"), ","), Partitions: c.Int("partitions"), Keys: c.Int("keys"), IncrementalKeys: c.Int("incremental-keys"), ValueSize: c.Int("value-size"),
				Latency: c.Duration("latency"), Parallel: c.Int("parallel"), Workers: c.Int("workers"), Rounds: c.Int("rounds"), QPS: c.Float64("qps"),
				Seconds: c.Float64("seconds"), NodePartitions: c.Int("node-partitions"), Progress: announce(c),
			}
			o.Dir = c.String("dir")
			o.EnsureDefaults()
			if err := o.Validate(); err != nil {
				return usagef("bench checkpoint: %v", err)
			}
			results, err := checkpointbench.Run(c.Context, o)
			return finishBench(c, lines[checkpointbench.Result](results), report.Document{Config: o, Machine: report.ThisMachine(c.String("dir")), Results: results}, err)
		},
	}
}
