package checkpointbench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"replicanode/bench/kv"
	"replicanode/bench/load"
	"replicanode/bench/process"
	"replicanode/bench/report"
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
	f := &foregroundRun{o: o, primary: primary, client: admin.NewClient(primary.Admin(), "")}
	defer f.client.Close()
	o.Progress(fmt.Sprintf("foreground: writing %d keys", o.Keys))
	if _, err := kv.Run(ctx, f.load(0.5, true), nil); err != nil {
		return nil, err
	}
	alone, err := f.measure(ctx, "foreground_alone", false)
	if err != nil {
		return results, err
	}
	results = append(results, alone)
	during, err := f.measure(ctx, "foreground_checkpoints", true)
	if err != nil {
		return results, err
	}
	during.ReadFactor = during.ReadP99Ms / alone.ReadP99Ms
	during.WriteFactor = during.WriteP99Ms / alone.WriteP99Ms
	during.LagFactor = during.LagP99Ms / alone.LagP99Ms
	return append(results, during), nil
}

func (o *Options) nodeArgs() []string {
	return []string{"--partitions", fmt.Sprint(o.NodePartitions), "--checkpoint-period", "0", "--checkpoint-parallel", fmt.Sprint(o.Parallel), "--log-level", "warn"}
}

// foregroundRun is a primary under load.
type foregroundRun struct {
	o       *Options
	primary *process.Process
	client  *admin.Client
}

func (f *foregroundRun) load(seconds float64, preload bool) kv.Options {
	o := kv.Options{Addr: f.primary.Listen(), QPS: f.o.QPS, Seconds: seconds, Ratio: "1:1", Keys: uint32(f.o.Keys), ValueSize: f.o.ValueSize, Preload: preload, Clients: 32, Seed: 1}
	o.EnsureDefaults()
	return o
}

// measure loads the primary, with checkpoints of the whole node one after another or without.
func (f *foregroundRun) measure(ctx context.Context, name string, checkpoints bool) (r Result, err error) {
	f.o.Progress(fmt.Sprintf("%s: %.0f requests a second for %.0f s", name, f.o.QPS, f.o.Seconds))
	lag := load.NewHistogram()
	side, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var lagErr, checkpointErr error
	wg.Go(func() { lagErr = f.sampleLag(side, lag) })
	if checkpoints {
		wg.Go(func() { r.Checkpoints, checkpointErr = f.checkpointAgain(side) })
	}
	result, err := kv.Run(ctx, f.load(f.o.Seconds, false), nil)
	cancel()
	wg.Wait()
	if err := errors.Join(err, lagErr, checkpointErr); err != nil {
		return r, err
	}
	if checkpoints && r.Checkpoints == 0 {
		return r, fmt.Errorf("no checkpoint ended within %.1f s; measure longer or with fewer keys", f.o.Seconds)
	}
	r.Name, r.Seconds, r.Errors = name, result.Seconds, result.Errors
	r.ReadP99Ms, r.WriteP99Ms, r.LagP99Ms = result.ReadMs.P99, result.WriteMs.P99, report.QuantilesOf(lag).P99
	return r, nil
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

// checkpointAgain makes checkpoints of the whole node one after another until ctx ends, and counts those that ended.
func (f *foregroundRun) checkpointAgain(ctx context.Context) (done int, err error) {
	type jobs struct {
		Jobs []struct {
			ID uint64 `json:"id"`
		} `json:"jobs"`
	}
	type job struct {
		Done  bool   `json:"done"`
		Error string `json:"error"`
	}
	for {
		begun, err := admin.Post[jobs](ctx, f.client, "/v1/checkpoints", map[string]bool{"all": true, "full": true})
		for err == nil {
			var j job
			if j, err = admin.Get[job](ctx, f.client, fmt.Sprintf("/v1/jobs/%d", begun.Jobs[0].ID)); err != nil || j.Done {
				if j.Error != "" {
					err = errors.New(j.Error)
				}
				break
			}
			select {
			case <-ctx.Done():
				return done, nil
			case <-time.After(lagInterval):
			}
		}
		switch {
		case ctx.Err() != nil:
			return done, nil
		case err != nil:
			return done, fmt.Errorf("checkpoint the node: %w", err)
		}
		done++
	}
}
