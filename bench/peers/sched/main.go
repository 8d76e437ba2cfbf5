// Command sched measures the scheduler beside the pools an engineer would otherwise pick: raw ants, pond, and a goroutine per
// task.
//
//	go run ./sched [--tasks N] [--only backlog,producers] [--saturation 60s] [--json FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"replicanode/bench/report"
	"replicanode/bench/sched"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sched peers:", err)
		os.Exit(1)
	}
}

func run() error {
	var o sched.Options
	flag.IntVar(&o.Tasks, "tasks", 0, "number of tasks a cost is measured over, in ten rounds (default 2,000,000)")
	flag.IntVar(&o.Samples, "samples", 0, "number of urgent tasks whose start is measured (default 500)")
	flag.DurationVar(&o.Saturation, "saturation", 0, "how long Common is kept saturated (default 60s)")
	only := flag.String("only", "", "measurements, separated by commas: "+strings.Join(sched.Names(), ", ")+" (default: all)")
	file := flag.String("json", "", "write the results to this file too; - writes them to standard output instead of text")
	flag.Parse()
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	o.Peers = []sched.Peer{antsPeer(), pondPeer(), goroutinePeer()}
	o.Progress = func(what string) { fmt.Fprintf(os.Stderr, "\r\x1b[K%s", what) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o.EnsureDefaults()
	results, err := sched.Run(ctx, o)
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	if *file != "-" {
		for _, r := range results {
			fmt.Println(r)
		}
	}
	if err != nil || *file == "" {
		return err
	}
	document := report.Document{
		Config:  map[string]any{"tasks": o.Tasks, "samples": o.Samples, "saturation_seconds": o.Saturation.Seconds()},
		Machine: report.ThisMachine("."),
		Results: results,
	}
	if *file == "-" {
		return report.EncodeJSON(os.Stdout, document)
	}
	return report.WriteJSON(*file, document)
}
