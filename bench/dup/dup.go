// Package dup is the headline experiment: what do priorities do to the freshness of a backup? `replicanode bench dup`.
//
// For every policy and rate, a primary and a backup are started as processes of their own, in fresh folders, and three parts are
// run against them over loopback: steady (lag and write latency under a maintenance storm), catch-up (the backup is killed and
// comes back), failover (the primary is killed: which acknowledged writes does the backup lack). docs/benchmarks.md describes the
// method and each figure.
//
//	rep, err := dup.Run(ctx, dup.Options{}, os.Stderr)
//	err = rep.Write(os.Stdout)
//	err = report.WriteJSON(path, rep)
//
// Everything is observed from the outside: writes through their replies, lag and maintenance through the admin API, losses by
// reading the backup. The amount of maintenance in the steady part is the same for all policies of one rate: the first policy
// with a storm is asked for maintenance back to back for as long as the part lasts, and the others for exactly what it finished.
package dup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"replicanode/bench/report"
)

// Run makes the experiment and shows on w, which may be nil, what it is at. The report holds the runs that were finished, also
// when there is an error. No node is left running and no folder left behind, whatever happens.
func Run(ctx context.Context, o Options, w io.Writer) (rep Report, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return Report{}, err
	}
	policies, err := findPolicies(o.Policies)
	if err != nil {
		return Report{}, err
	}
	dir, err := os.MkdirTemp(o.Dir, "replicanode-bench-")
	if err != nil {
		return Report{}, fmt.Errorf("make folder for the nodes: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rep = Report{
		Runs:    []Result{},
		Config:  Config{Options: o, PolicyTable: policies, CaughtUpMs: report.DurationMillis(caughtUp)},
		Machine: report.ThisMachine(dir),
	}
	steps := 0
	for _, p := range policies {
		steps += len(o.QPS) * p.parts()
	}
	progress := report.NewProgress(w, steps)
	defer progress.Close()
	for _, qps := range o.QPS {
		var quota []int
		for _, policy := range policies {
			e := &experiment{opts: o, policy: policy, qps: qps, quota: quota, step: progress.Step}
			e.dir = filepath.Join(dir, fmt.Sprintf("%s-%g", policy.Name, qps))
			if err := os.Mkdir(e.dir, 0o755); err != nil {
				return rep, fmt.Errorf("make folder for the nodes: %w", err)
			}
			cycles, err := e.run(ctx)
			if err != nil {
				return rep, fmt.Errorf("policy %s at %g/s: %w", policy.Name, qps, err)
			}
			if policy.Storm && quota == nil {
				quota = cycles
			}
			rep.Runs = append(rep.Runs, e.result)
			if err := os.RemoveAll(e.dir); err != nil {
				return rep, fmt.Errorf("remove folder of the nodes: %w", err)
			}
		}
	}
	return rep, nil
}
