package checkpointbench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
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
	return []string{"--partitions", fmt.Sprint(o.NodePartitions), "--workers", fmt.Sprint(o.Workers), "--checkpoint-period", "0", "--checkpoint-parallel", fmt.Sprint(o.Parallel), "--log-level", "warn"}
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
	// windowTime is how long a window lasts, of which quantiles are taken.
	windowTime = 2 * time.Second
	// shortestPart is how long a part without checkpoints lasts at least.
	shortestPart = 2 * windowTime
	// settleTime, after a checkpoint, belongs to neither: what it left behind must not be held against the part without.
	settleTime = 500 * time.Millisecond
	// mostCheckpointTime bounds each checkpoint.
	mostCheckpointTime = 5 * time.Minute
)

// measure alternates parts without checkpoints and checkpoints of the whole node, beginning and ending without, until these have had
// Options.Seconds. A part without is as long as the checkpoint before it, but at most half of that: what changes with time, as the
// databases' tables and the machine's mood do, hits both alike.
func (f *foregroundRun) measure(ctx context.Context) ([]Result, error) {
	least := time.Duration(f.o.Seconds * float64(time.Second))
	f.o.Progress(fmt.Sprintf("foreground: %.0f requests a second, checkpoints for %v at least, each between two parts without", f.o.QPS, least))
	if err := pause.For(ctx, warmTime); err != nil {
		return nil, err
	}
	alone, during := newPart("foreground_alone"), newPart("foreground_checkpoints")
	length := shortestPart
	without := func() error {
		return f.watch(ctx, alone, func(ctx context.Context) error { return pause.For(ctx, length) })
	}
	for during.r.Seconds < least.Seconds() {
		if err := without(); err != nil {
			return nil, err
		}
		before := during.r.Seconds
		if err := f.watch(ctx, during, f.checkpoint); err != nil {
			return nil, fmt.Errorf("checkpoint the node: %w", err)
		}
		during.r.Checkpoints++
		took := time.Duration((during.r.Seconds - before) * float64(time.Second))
		length = max(shortestPart, min(took, least/2))
		if err := pause.For(ctx, settleTime); err != nil {
			return nil, err
		}
	}
	if err := without(); err != nil {
		return nil, err
	}
	a, d := alone.result(), during.result()
	d.ReadFactor, d.WriteFactor, d.LagFactor = d.ReadP99Ms/a.ReadP99Ms, d.WriteP99Ms/a.WriteP99Ms, d.LagP99Ms/a.LagP99Ms
	d.ReadMedianFactor, d.WriteMedianFactor, d.LagMedianFactor = d.ReadMedianMs/a.ReadMedianMs, d.WriteMedianMs/a.WriteMedianMs, d.LagMedianMs/a.LagMedianMs
	d.ReadWindowFactor, d.WriteWindowFactor, d.LagWindowFactor = d.ReadWindowMs/a.ReadWindowMs, d.WriteWindowMs/a.WriteWindowMs, d.LagWindowMs/a.LagWindowMs
	return []Result{a, d}, nil
}

// watch adds to p what clients see while run runs, window by window.
func (f *foregroundRun) watch(ctx context.Context, p *part, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	f.load.Take()
	for {
		w := newPart("")
		over, err := f.window(ctx, w, ended)
		if err != nil {
			cancel()
			if !over {
				<-ended
			}
			return err
		}
		p.add(w)
		if over {
			return nil
		}
	}
}

// window measures one window, or a shorter one when what is measured ends; over says so.
func (f *foregroundRun) window(ctx context.Context, w *part, ended <-chan error) (over bool, err error) {
	side, cancel := context.WithCancel(ctx)
	defer cancel()
	sampled := make(chan error, 1)
	go func() { sampled <- f.sampleLag(side, w.lag) }()
	end := time.NewTimer(windowTime)
	defer end.Stop()
	select {
	case err = <-ended:
		over = true
	case <-end.C:
	}
	cancel()
	if err := errors.Join(err, <-sampled); err != nil {
		return over, err
	}
	s := f.load.Take()
	w.reads.Merge(s.Reads)
	w.writes.Merge(s.Writes)
	w.r.Seconds, w.r.Errors = s.Elapsed.Seconds(), s.Errors
	return over, nil
}

// part is what was seen of the foreground, in one piece of time or more.
type part struct {
	r                  Result
	reads, writes, lag *hdrhistogram.Histogram
	windows            []Result
}

func newPart(name string) *part {
	return &part{r: Result{Name: name}, reads: load.NewHistogram(), writes: load.NewHistogram(), lag: load.NewHistogram()}
}

// add adds what was seen in a window. One that was cut short counts for the whole, but is not compared with whole ones.
func (p *part) add(w *part) {
	p.reads.Merge(w.reads)
	p.writes.Merge(w.writes)
	p.lag.Merge(w.lag)
	p.r.Seconds += w.r.Seconds
	p.r.Errors += w.r.Errors
	if w.r.Seconds > windowTime.Seconds()/2 {
		p.windows = append(p.windows, w.result())
	}
}

func (p *part) result() Result {
	reads, writes, lag := report.QuantilesOf(p.reads), report.QuantilesOf(p.writes), report.QuantilesOf(p.lag)
	p.r.ReadP99Ms, p.r.WriteP99Ms, p.r.LagP99Ms = reads.P99, writes.P99, lag.P99
	p.r.ReadMedianMs, p.r.WriteMedianMs, p.r.LagMedianMs = reads.P50, writes.P50, lag.P50
	if p.r.Windows = len(p.windows); p.r.Windows > 0 {
		p.r.ReadWindowMs = p.middle(func(r *Result) float64 { return r.ReadP99Ms })
		p.r.WriteWindowMs = p.middle(func(r *Result) float64 { return r.WriteP99Ms })
		p.r.LagWindowMs = p.middle(func(r *Result) float64 { return r.LagP99Ms })
	}
	return p.r
}

// middle is the median of a value of the windows.
func (p *part) middle(value func(*Result) float64) float64 {
	var vs []float64
	for i := range p.windows {
		vs = append(vs, value(&p.windows[i]))
	}
	slices.Sort(vs)
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
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

// checkpoint makes one checkpoint of the whole node.
func (f *foregroundRun) checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, mostCheckpointTime, fmt.Errorf("not ended after %v", mostCheckpointTime))
	defer cancel()
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
