package checkpointbench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"replicanode/bench/load"
	"replicanode/bench/process"
	"replicanode/bench/report"
	"replicanode/internal/pause"
	"replicanode/server/admin"
)

// remote is the backup's name.
const remote = "backup"

func foreground(ctx context.Context, o *Options) (results []Result, err error) {
	o.Progress("foreground: starting a primary and a backup")
	backup, err := process.Start(ctx, process.Options{Binary: o.Binary, Dir: filepath.Join(o.Dir, "backup-node"), Args: o.nodeArgs()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backup.Kill()) }()
	primary, err := process.Start(ctx, process.Options{Binary: o.Binary, Dir: filepath.Join(o.Dir, "primary-node"),
		Args: append(o.nodeArgs(), "--duplicate-to", remote+"="+backup.Peer())})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, primary.Kill()) }()
	o.Progress(fmt.Sprintf("foreground: writing %d keys", o.Keys))
	w := load.Workload{Keys: uint32(o.Keys), ValueSize: o.ValueSize, Reads: 1, Writes: 1, Prefix: "key:", Seed: 1}
	w.EnsureDefaults()
	if _, err := load.Preload(ctx, load.PreloadOptions{Addr: primary.Listen(), Workload: w}); err != nil {
		return nil, err
	}
	f := &foregroundRun{o: o, client: admin.NewClient(primary.Admin(), "")}
	defer f.client.Close()
	if f.load, err = load.StartOpen(ctx, load.OpenOptions{Addr: primary.Listen(), Connections: connections, Rate: o.QPS, Workload: w}); err != nil {
		return nil, err
	}
	defer func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		err = errors.Join(err, f.load.Stop(drain))
	}()
	return f.measure(ctx)
}

func (o *Options) nodeArgs() []string {
	return []string{"--partitions", fmt.Sprint(o.NodePartitions), "--checkpoint-period", "0", "--checkpoint-parallel", fmt.Sprint(o.Parallel), "--log-level", "warn"}
}

// foregroundRun is a primary under a load that does not stop.
type foregroundRun struct {
	o      *Options
	load   *load.Open
	client *admin.Client
}

const (
	connections = 32
	// warmTime is how long the load runs before anything is measured.
	warmTime  = 2 * time.Second
	drainTime = 10 * time.Second
	// mostCheckpointTime bounds the part with checkpoints, as a multiple of Options.Seconds.
	mostCheckpointTime = 10
)

// measure takes the foreground without checkpoints half before and half after the part with them: what changes with time, as the
// databases' tables and the machine's mood do, hits both alike.
func (f *foregroundRun) measure(ctx context.Context) ([]Result, error) {
	half := time.Duration(f.o.Seconds / 2 * float64(time.Second))
	alone, during := newPart("foreground_alone"), newPart("foreground_checkpoints")
	wait := func(ctx context.Context) error { return pause.For(ctx, half) }
	f.o.Progress(fmt.Sprintf("foreground: %.0f requests a second, %v alone, then with checkpoints, then %v alone", f.o.QPS, half, half))
	if err := pause.For(ctx, warmTime); err != nil {
		return nil, err
	}
	f.load.Take()
	for _, step := range []struct {
		part *part
		run  func(context.Context) error
	}{{alone, wait}, {during, func(ctx context.Context) (err error) {
		during.r.Checkpoints, err = f.checkpointAgain(ctx)
		return err
	}}, {alone, wait}} {
		if err := f.during(ctx, step.part, step.run); err != nil {
			return nil, err
		}
	}
	a, d := alone.result(), during.result()
	d.ReadFactor, d.WriteFactor, d.LagFactor = d.ReadP99Ms/a.ReadP99Ms, d.WriteP99Ms/a.WriteP99Ms, d.LagP99Ms/a.LagP99Ms
	d.ReadMedianFactor, d.WriteMedianFactor, d.LagMedianFactor = d.ReadMedianMs/a.ReadMedianMs, d.WriteMedianMs/a.WriteMedianMs, d.LagMedianMs/a.LagMedianMs
	return []Result{a, d}, nil
}

// part is what was seen of the foreground, in one piece of time or more.
type part struct {
	r                  Result
	reads, writes, lag *hdrhistogram.Histogram
}

func newPart(name string) *part {
	return &part{Result{Name: name}, load.NewHistogram(), load.NewHistogram(), load.NewHistogram()}
}

func (p *part) result() Result {
	reads, writes, lag := report.QuantilesOf(p.reads), report.QuantilesOf(p.writes), report.QuantilesOf(p.lag)
	p.r.ReadP99Ms, p.r.WriteP99Ms, p.r.LagP99Ms = reads.P99, writes.P99, lag.P99
	p.r.ReadMedianMs, p.r.WriteMedianMs, p.r.LagMedianMs = reads.P50, writes.P50, lag.P50
	return p.r
}

// during adds to p what clients see while run runs.
func (f *foregroundRun) during(ctx context.Context, p *part, run func(context.Context) error) error {
	side, cancel := context.WithCancel(ctx)
	defer cancel()
	sampled := make(chan error, 1)
	go func() { sampled <- f.sampleLag(side, p.lag) }()
	err := run(ctx)
	cancel()
	if err := errors.Join(err, <-sampled); err != nil {
		return err
	}
	s := f.load.Take()
	p.reads.Merge(s.Reads)
	p.writes.Merge(s.Writes)
	p.r.Seconds += s.Elapsed.Seconds()
	p.r.Errors += s.Errors
	return nil
}

// lagInterval is how often the lag is asked for.
const lagInterval = 20 * time.Millisecond

// sampleLag asks for the lag until ctx ends. A late answer stands for all the questions that fell due meanwhile.
func (f *foregroundRun) sampleLag(ctx context.Context, lag *hdrhistogram.Histogram) error {
	tick := time.NewTicker(lagInterval)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		a, err := admin.Get[struct {
			Lag struct {
				Seconds float64 `json:"seconds"`
			} `json:"lag"`
		}](ctx, f.client, "/v1/duplications/"+remote+"/lag")
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask for the lag: %w", err)
		}
		now := time.Now()
		load.Record(lag, time.Duration(a.Lag.Seconds*float64(time.Second)), max(1, int64((now.Sub(last)+lagInterval/2)/lagInterval)))
		last = now
	}
}

// checkpointAgain makes checkpoints of the whole node, one after another until Options.Seconds have passed, and waits for the end
// of the last: every part of making one counts.
func (f *foregroundRun) checkpointAgain(ctx context.Context) (done int, err error) {
	least := time.Duration(f.o.Seconds * float64(time.Second))
	bounded, cancel := context.WithTimeout(ctx, mostCheckpointTime*least)
	defer cancel()
	for begun := time.Now(); time.Since(begun) < least; done++ {
		if err := f.checkpoint(bounded); ctx.Err() == nil && bounded.Err() != nil {
			return done, fmt.Errorf("%d checkpoints of the node in %v, and the next has not ended", done, mostCheckpointTime*least)
		} else if err != nil {
			return done, fmt.Errorf("checkpoint the node: %w", err)
		}
	}
	return done, nil
}

// checkpoint makes one checkpoint of the whole node.
func (f *foregroundRun) checkpoint(ctx context.Context) error {
	type jobs struct {
		Jobs []struct {
			ID uint64 `json:"id"`
		} `json:"jobs"`
	}
	type job struct {
		Done  bool   `json:"done"`
		Error string `json:"error"`
	}
	begun, err := admin.Post[jobs](ctx, f.client, "/v1/checkpoints", map[string]bool{"all": true, "full": true})
	if err != nil {
		return err
	}
	for {
		j, err := admin.Get[job](ctx, f.client, fmt.Sprintf("/v1/jobs/%d?wait=10s", begun.Jobs[0].ID))
		switch {
		case err != nil:
			return err
		case j.Error != "":
			return errors.New(j.Error)
		case j.Done:
			return nil
		}
	}
}
