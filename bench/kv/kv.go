// Package kv measures a RESP server, ours or any other, with single SETs and GETs: `replicanode bench kv`.
//
// Without a rate the load is closed-loop: Clients × Pipeline requests are always open, which finds out how much the server can
// do. With a rate (QPS) it is open-loop: requests fall due by a fixed schedule on Clients connections and latency counts from
// then, which finds out what clients feel at that rate. See package load for how both are made.
//
//	res, err := kv.Run(ctx, kv.Options{Addr: "127.0.0.1:6379", Ratio: "9:1"}, os.Stderr)
//	err = res.Write(os.Stdout)
//	err = report.WriteJSON(path, res.Document())
package kv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"replicanode/bench/load"
	"replicanode/bench/report"
)

// Options configures a run. The zero value of a field means its default.
type Options struct {
	// Addr is the server (host:port). Default 127.0.0.1:6380.
	Addr string `json:"addr"`
	// Password is sent by AUTH. Default none.
	Password string `json:"-"`
	// Clients is the number of connections, 1 to 4096. Default 50.
	Clients int `json:"clients"`
	// Pipeline is how many requests a closed-loop client sends before it waits, 1 to 1024. Default 1. An open loop never waits.
	Pipeline int `json:"pipeline"`
	// Requests ends the run after this many requests (an open loop: when that many were due). Default 0: Seconds alone.
	Requests uint64 `json:"requests"`
	// Seconds ends the run after this long. Default 10 when Requests is 0.
	Seconds float64 `json:"seconds"`
	// QPS is the open-loop rate, requests a second. Default 0: closed loop.
	QPS float64 `json:"qps"`
	// Arrivals is the kind of open-loop schedule. Default load.Poisson.
	Arrivals load.Arrivals `json:"arrivals"`
	// Ratio is reads:writes. Default "1:1".
	Ratio string `json:"ratio"`
	// Dist is how often each key is used. Default load.Uniform.
	Dist load.Distribution `json:"dist"`
	// Theta is the exponent of load.Zipfian. Default 0.99.
	Theta float64 `json:"theta"`
	// Keys is the number of keys. Default 100,000.
	Keys uint32 `json:"keys"`
	// ValueSize is the size of a value in bytes. Default 100.
	ValueSize int `json:"value_size"`
	// Preload writes every key once before the run. Default false: reads of keys that were never written find nothing.
	Preload bool `json:"preload"`
	// Seed fixes schedule, keys and values. Default 0.
	Seed uint64 `json:"seed"`

	drain time.Duration // how long the last answers are waited for; default drainTime
}

const (
	defaultAddr    = "127.0.0.1:6380"
	defaultSeconds = 10
	maxSeconds     = 7 * 24 * 3600
	drainTime      = 10 * time.Second
)

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	o.Addr = cmp.Or(o.Addr, defaultAddr)
	o.Clients = cmp.Or(o.Clients, 50)
	o.Pipeline = cmp.Or(o.Pipeline, 1)
	if o.Requests == 0 {
		o.Seconds = cmp.Or(o.Seconds, defaultSeconds)
	}
	o.Arrivals = cmp.Or(o.Arrivals, load.Poisson)
	o.Ratio = cmp.Or(o.Ratio, "1:1")
	var w load.Workload
	w.EnsureDefaults()
	o.Dist = cmp.Or(o.Dist, w.Dist)
	o.Theta = cmp.Or(o.Theta, w.Theta)
	o.Keys = cmp.Or(o.Keys, w.Keys)
	o.ValueSize = cmp.Or(o.ValueSize, w.ValueSize)
	o.drain = cmp.Or(o.drain, drainTime)
}

// Validate checks every field after EnsureDefaults.
func (o *Options) Validate() error {
	switch {
	case !(o.Seconds >= 0) || o.Seconds > maxSeconds:
		return fmt.Errorf("seconds %v: must be between 0 and %d", o.Seconds, maxSeconds)
	case !(o.QPS >= 0) || o.QPS > load.MaxRate:
		return fmt.Errorf("qps %v: must be between 0 (closed loop) and %d", o.QPS, load.MaxRate)
	case o.Arrivals != load.Poisson && o.Arrivals != load.Evenly:
		return fmt.Errorf("arrivals %q: must be %q or %q", o.Arrivals, load.Poisson, load.Evenly)
	case o.QPS > 0 && o.Pipeline > 1:
		return fmt.Errorf("pipeline %d: an open loop (qps %v) sends every request when it is due; leave pipeline out", o.Pipeline, o.QPS)
	}
	w, err := o.workload()
	if err != nil {
		return err
	}
	closed := load.ClosedOptions{Addr: o.Addr, Clients: o.Clients, Pipeline: o.Pipeline, Workload: w}
	return closed.Validate()
}

func (o *Options) workload() (load.Workload, error) {
	reads, writes, err := parseRatio(o.Ratio)
	return load.Workload{
		Keys: o.Keys, Dist: o.Dist, Theta: o.Theta, ValueSize: o.ValueSize, Reads: reads, Writes: writes, Prefix: "key:", Seed: o.Seed,
	}, err
}

// parseRatio reads "reads:writes", such as "9:1" or "0:1".
func parseRatio(s string) (reads, writes uint32, err error) {
	r, w, ok := strings.Cut(s, ":")
	a, errR := strconv.ParseUint(r, 10, 20)
	b, errW := strconv.ParseUint(w, 10, 20)
	if !ok || errR != nil || errW != nil || a+b == 0 {
		return 0, 0, fmt.Errorf("ratio %q: must be reads:writes, two whole numbers below %d, such as 9:1", s, 1<<20)
	}
	return uint32(a), uint32(b), nil
}

// driver is what both kinds of load have in common.
type driver interface {
	Done() <-chan struct{}
	Take() load.Stats
	Stop(ctx context.Context) error
}

// length is how long requests are made; 0: until there were enough.
func (o *Options) length() time.Duration {
	length := time.Duration(o.Seconds * float64(time.Second))
	if o.QPS > 0 && o.Requests > 0 {
		if due := time.Duration(float64(o.Requests) / o.QPS * float64(time.Second)); length == 0 || due < length {
			return due
		}
	}
	return length
}

// Run loads the server and measures it. While it runs it writes one line a second to progress, which may be nil. When ctx ends,
// or the server closes a connection, the result so far comes with the error. A server that does not answer is not waited for
// longer than 10 s after the last request.
func Run(ctx context.Context, o Options, progress io.Writer) (Result, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	w, err := o.workload()
	if err != nil {
		return Result{}, err
	}
	if progress == nil {
		progress = io.Discard
	}
	if o.Preload {
		fmt.Fprintf(progress, "preloading %d keys of %d bytes\n", o.Keys, o.ValueSize)
		if _, err := load.Preload(ctx, load.PreloadOptions{Addr: o.Addr, Password: o.Password, Workload: w}); err != nil {
			return Result{}, err
		}
	}
	d, err := start(ctx, o, w)
	if err != nil {
		return Result{}, err
	}
	sum := watch(ctx, d, o.length(), progress)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.drain)
	defer cancel()
	err = d.Stop(drain)
	sum.Add(d.Take())
	return newResult(o, sum), errors.Join(ctx.Err(), err)
}

func start(ctx context.Context, o Options, w load.Workload) (driver, error) {
	if o.QPS == 0 {
		return load.StartClosed(ctx, load.ClosedOptions{
			Addr: o.Addr, Password: o.Password, Clients: o.Clients, Pipeline: o.Pipeline,
			Requests: o.Requests, Duration: o.length(), Workload: w,
		})
	}
	return load.StartOpen(ctx, load.OpenOptions{
		Addr: o.Addr, Password: o.Password, Connections: o.Clients, Rate: o.QPS, Arrivals: o.Arrivals, Duration: o.length(), Workload: w,
	})
}

// watch shows every second of the load until no more requests are made (after length, unless that is 0), it ends by itself, or ctx
// does.
func watch(ctx context.Context, d driver, length time.Duration, progress io.Writer) load.Stats {
	sum := load.NewStats()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var over <-chan time.Time
	if length > 0 {
		over = time.After(length)
	}
	for begun := time.Now(); ; {
		select {
		case <-tick.C:
			s := d.Take()
			fmt.Fprintf(progress, "%5.0fs  %8.0f/s  read p99 %s ms  write p99 %s ms  errors %d\n", time.Since(begun).Seconds(), s.Rate(),
				report.Millis(report.QuantilesOf(s.Reads).P99), report.Millis(report.QuantilesOf(s.Writes).P99), s.Errors)
			sum.Add(s)
		case <-over:
			return sum
		case <-d.Done():
			return sum
		case <-ctx.Done():
			return sum
		}
	}
}
