// Command plog measures the private log beside the log libraries an engineer would otherwise pick: hashicorp/raft-wal,
// tidwall/wal and etcd's wal. Same records, same batches, every append synced.
//
//	go run ./plog [--dir DIR] [--round 1s] [--rounds 3] [--only append,appenders] [--json FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"replicanode/bench/plogbench"
	"replicanode/bench/report"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plog peers:", err)
		os.Exit(1)
	}
}

func run() error {
	var o plogbench.Options
	flag.StringVar(&o.Dir, "dir", "", "folder on the disk to measure (default: the system's temporary folder)")
	flag.DurationVar(&o.Round, "round", time.Second, "how long each log is measured in a round")
	flag.IntVar(&o.Rounds, "rounds", 3, "how often: all rounds of appends count, the median one of the rest")
	only := flag.String("only", "", "scenarios, separated by commas: append, appenders, logs, read_cached, read_cold, open (default: all)")
	file := flag.String("json", "", "write the results to this file too")
	flag.Parse()
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	o.Subjects = []plogbench.Factory{raftWAL(), tidwall(), etcdWAL()}
	o.Progress = func(what string) { fmt.Fprintf(os.Stderr, "\r\x1b[K%s", what) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o.EnsureDefaults()
	results, err := plogbench.Run(ctx, o)
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	for _, r := range results {
		fmt.Println(r)
	}
	if err != nil || *file == "" {
		return err
	}
	return report.WriteJSON(*file, report.Document{
		Config:  map[string]any{"only": o.Only, "round_seconds": o.Round.Seconds(), "rounds": o.Rounds},
		Machine: report.ThisMachine(o.Dir),
		Results: results,
	})
}
