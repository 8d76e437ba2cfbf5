package dup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"replicanode/bench/load"
	"replicanode/bench/process"
	"replicanode/bench/report"
)

const (
	// caughtUp is the lag below which the backup counts as caught up: under load it is hardly ever zero for all partitions.
	caughtUp = 200 * time.Millisecond

	leadIn          = time.Second      // of load and storm, before a part measures
	drainTimeout    = 10 * time.Second // for the last answers of a load
	settleTimeout   = time.Minute      // for the lag to become zero without load
	finishTimeout   = 2 * time.Minute  // for maintenance that was asked for
	killedDrain     = time.Second      // for the load's connections to a killed node to break
	appliedQuiet    = 300 * time.Millisecond
	pollInterval    = 10 * time.Millisecond
	primaryCluster  = 1
	backupCluster   = 2
	remoteName      = "backup"
	checkpointsKept = 1

	// Two askers for each partition: the next checkpoint is queued before the last one ends.
	askersPerPartition = 2

	// Small segments and memtables let a run of seconds flush databases and collect logs, which takes a node minutes.
	segmentBytes  = 1 << 20
	memtableBytes = 8 << 20
)

// experiment is one policy at one rate, from fresh folders to the death of the primary.
type experiment struct {
	opts   Options
	policy Policy
	qps    float64
	dir    string
	quota  []int // cycles of maintenance of each asker in the steady part; nil: this run finds out
	step   func(format string, args ...any)

	primary, backup *process.Process
	admin           *node // of the primary
	ledger          *load.Ledger
	result          Result
}

// parts is how many steps an experiment with the policy shows.
func (p Policy) parts() int {
	if p.Adaptive {
		return 5
	}
	return 4
}

// run makes all parts. It returns the cycles of maintenance that the steady part had.
func (e *experiment) run(ctx context.Context) (cycles []int, err error) {
	defer e.killAll()
	e.result = Result{Name: e.policy.Name, Policy: e.policy.Name, QPS: e.qps}
	e.ledger = load.NewLedger(e.opts.Keys)
	e.step("%s at %g/s: starting, writing %d keys", e.policy.Name, e.qps, e.opts.Keys)
	if err := e.start(ctx); err != nil {
		return nil, err
	}
	e.step("%s at %g/s: steady for %g s", e.policy.Name, e.qps, e.opts.Seconds)
	if cycles, err = e.steady(ctx); err != nil {
		return nil, fmt.Errorf("steady part: %w", e.blame(err))
	}
	if e.policy.Adaptive {
		e.step("%s at %g/s: backup throttled for %g s", e.policy.Name, e.qps, e.opts.ThrottleSeconds)
		if err := e.throttled(ctx); err != nil {
			return nil, fmt.Errorf("throttled part: %w", e.blame(err))
		}
	}
	e.step("%s at %g/s: backup away for %g s", e.policy.Name, e.qps, e.opts.AwaySeconds)
	if err := e.catchUp(ctx); err != nil {
		return nil, fmt.Errorf("catch-up part: %w", e.blame(err))
	}
	e.step("%s at %g/s: failover after %g s", e.policy.Name, e.qps, e.opts.FailoverSeconds)
	if err := e.failover(ctx); err != nil {
		return nil, fmt.Errorf("failover part: %w", e.blame(err))
	}
	return cycles, nil
}

func (e *experiment) start(ctx context.Context) error {
	args := append(e.policy.args(e.opts.Workers),
		"--partitions", strconv.Itoa(e.opts.Partitions), "--dup-tail-bytes", strconv.FormatInt(e.opts.TailBytes, 10),
		"--segment-bytes", strconv.Itoa(segmentBytes), "--memtable-bytes", strconv.Itoa(memtableBytes),
		"--checkpoint-period", "0", "--checkpoint-chain", "off", "--checkpoint-keep", strconv.Itoa(checkpointsKept), "--log-level", "warn")
	if e.opts.BatchBytes > 0 {
		args = append(args, "--dup-batch-bytes", strconv.FormatInt(e.opts.BatchBytes, 10))
	}
	start := func(name string, more ...string) (*process.Process, error) {
		return process.Start(ctx, process.Options{Binary: e.opts.Binary, Dir: filepath.Join(e.dir, name), Args: append(more, args...)})
	}
	var err error
	if e.backup, err = start("backup", "--cluster-id", strconv.Itoa(backupCluster)); err != nil {
		return err
	}
	if e.primary, err = start("primary", "--cluster-id", strconv.Itoa(primaryCluster), "--duplicate-to", remoteName+"="+e.backup.Peer()); err != nil {
		return err
	}
	e.admin = newNode(e.primary.Admin(), remoteName)
	if _, err := load.Preload(ctx, load.PreloadOptions{Addr: e.primary.Listen(), Workload: e.opts.workload(), Ledger: e.ledger}); err != nil {
		return e.blame(err)
	}
	return e.blame(e.settle(ctx))
}

func (e *experiment) killAll() {
	if e.admin != nil {
		e.admin.close()
	}
	for _, p := range []*process.Process{e.primary, e.backup} {
		if p != nil {
			_ = p.Kill()
		}
	}
}

// blame adds to an error the end of a node that nobody killed.
func (e *experiment) blame(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	for _, p := range []*process.Process{e.primary, e.backup} {
		if p != nil {
			err = errors.Join(err, p.Err())
		}
	}
	return err
}

// steady measures lag and write latency under load and storm, and lets the maintenance finish.
func (e *experiment) steady(ctx context.Context) (cycles []int, err error) {
	writes, err := e.startLoad(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer e.stopLoad(ctx, writes)
	sampler := startSampler(ctx, e.admin.lag)
	defer sampler.stop()
	begun := time.Now()
	storm := e.startStorm(ctx, e.quota)
	defer storm.abort()
	if err := e.sleep(ctx, leadIn); err != nil {
		return nil, err
	}
	writes.Take()
	if _, err := sampler.take(); err != nil {
		return nil, err
	}
	if err := e.sleep(ctx, seconds(e.opts.Seconds)); err != nil {
		return nil, err
	}
	stats := writes.Take()
	behind, err := sampler.take()
	if err != nil {
		return nil, err
	}
	e.result.LagMs, e.result.BacklogMax, e.result.BacklogBytesMax = report.QuantilesOf(behind.lag), behind.decrees, behind.bytes
	e.result.WriteMs, e.result.SendDelayMs = report.QuantilesOf(stats.Writes), report.QuantilesOf(stats.SendDelay)
	e.result.Writes, e.result.WriteErrors = stats.Requests(), stats.Errors
	if e.result.TaskWaitMs, err = e.admin.waits(ctx); err != nil {
		return nil, err
	}
	if err := e.stopLoad(ctx, writes); err != nil {
		return nil, err
	}
	finish, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if cycles, err = storm.finish(finish); err != nil {
		return nil, err
	}
	if e.policy.Storm {
		e.result.MaintenanceS = time.Since(begun).Seconds()
	}
	for _, n := range cycles {
		e.result.CheckpointsDone += n
	}
	e.result.GCBytes, err = e.admin.collected(ctx)
	return cycles, errors.Join(err, e.settle(ctx))
}

// catchUp kills the backup under load and storm, starts it again after a while, and measures how long the lag takes to go.
func (e *experiment) catchUp(ctx context.Context) error {
	writes, err := e.startLoad(ctx, 2)
	if err != nil {
		return err
	}
	defer e.stopLoad(ctx, writes)
	storm := e.startStorm(ctx, nil)
	defer storm.abort()
	if err := e.sleep(ctx, leadIn); err != nil {
		return err
	}
	if err := e.backup.Kill(); err != nil {
		return err
	}
	select {
	case <-time.After(seconds(e.opts.AwaySeconds)):
	case <-e.primary.Exited():
		return e.primary.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.backup, err = process.Start(ctx, e.backup.Again()); err != nil {
		return err
	}
	begun := time.Now()
	limit, cancel := context.WithTimeout(ctx, seconds(e.opts.CatchUpSeconds))
	defer cancel()
	err = e.await(limit, func(s lagSample) bool { return s.worst < caughtUp })
	switch took := time.Since(begun).Seconds(); {
	case err == nil:
		e.result.CatchupS = &took
	case limit.Err() == nil || ctx.Err() != nil:
		return err
	}
	if err := e.stopLoad(ctx, writes); err != nil {
		return err
	}
	finish, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if _, err := storm.finish(finish); err != nil {
		return err
	}
	return e.settle(ctx)
}

// failover kills the primary under load and storm and counts the acknowledged writes that the backup lacks.
func (e *experiment) failover(ctx context.Context) error {
	writes, err := e.startLoad(ctx, 3)
	if err != nil {
		return err
	}
	defer e.stopLoad(ctx, writes)
	storm := e.startStorm(ctx, nil)
	defer storm.abort()
	if err := e.sleep(ctx, seconds(e.opts.FailoverSeconds)); err != nil {
		return err
	}
	if err := e.primary.Kill(); err != nil {
		return err
	}
	drain, cancel := context.WithTimeout(ctx, killedDrain)
	defer cancel()
	// The connections are expected to be lost.
	_ = writes.Stop(drain)
	storm.abort()
	if err := awaitQuiet(ctx, e.backup); err != nil {
		return err
	}
	verdict, err := load.ReadBack(ctx, e.backup.Listen(), "", e.opts.workload(), e.ledger)
	e.result.LostAtFailover, e.result.AckedAtFailover = verdict.Lost, verdict.Acknowledged
	return err
}

func (e *experiment) startLoad(ctx context.Context, part uint64) (*load.Open, error) {
	w := e.opts.workload()
	w.Seed += part << 32
	return load.StartOpen(ctx, load.OpenOptions{
		Addr: e.primary.Listen(), Connections: e.opts.Connections, Rate: e.qps, Workload: w, Ledger: e.ledger,
	})
}

// stopLoad ends the load. A primary that does not answer is waited for only so long.
func (e *experiment) stopLoad(ctx context.Context, writes *load.Open) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	return writes.Stop(ctx)
}

// startStorm starts the policy's maintenance, which is none for a policy without a storm.
func (e *experiment) startStorm(ctx context.Context, quota []int) *storm {
	askers := askersPerPartition * e.opts.Partitions
	if !e.policy.Storm {
		quota = make([]int, askers)
	}
	return startStorm(ctx, askers, quota, func(ctx context.Context, asker int) error {
		return e.admin.maintain(ctx, asker%e.opts.Partitions)
	})
}

// sleep lets time pass while both nodes live.
func (e *experiment) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-e.primary.Exited():
		return e.primary.Err()
	case <-e.backup.Exited():
		return e.backup.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle waits until the backup has everything.
func (e *experiment) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	err := e.await(ctx, func(s lagSample) bool { return s.decrees == 0 })
	if err != nil {
		return fmt.Errorf("wait for the backup to have everything: %w", err)
	}
	return nil
}

// await asks for the lag until it is as wanted and every partition is being shipped.
func (e *experiment) await(ctx context.Context, wanted func(lagSample) bool) error {
	for {
		s, err := e.admin.lag(ctx)
		if err == nil && wanted(s) {
			// Without a stream nothing is known of the backup, and the lag may look like none.
			var shipping bool
			if shipping, err = e.admin.shipping(ctx); shipping {
				return nil
			}
		}
		select {
		case <-time.After(pollInterval):
		case <-e.primary.Exited():
			return e.primary.Err()
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("last lag %v and %d decrees: %w", s.worst, s.decrees, ctx.Err()), err)
		}
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
