// Package simulate runs the scheduler's own rules (threadpool.Model) in virtual time, for clusters of a size that one
// machine does not have: a workload says which tasks arrive, a policy how they are ranked, and the result is how long each code's
// tasks waited.
//
//	w := simulate.DefaultWorkload()
//	results, err := simulate.Run(ctx, simulate.Options{Nodes: 1000, Partitions: 64000, Workload: w})
//
// Nodes are independent of each other and are simulated one after the other, each from the seed and its own number: the
// same options give the same results.
package simulate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"replicanode/bench/report"
	"replicanode/threadpool"
)

// Duration is a time.Duration that JSON writes and reads as text, such as "10ms".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Load is one code's tasks.
type Load struct {
	// Code names them, Priority is their level unless a policy says otherwise.
	Code     string              `json:"code"`
	Priority threadpool.Priority `json:"priority"`
	// Every is the mean time between two tasks of one partition; arrivals are random (Poisson).
	Every Duration `json:"every"`
	// Mean is the mean slot time, Spread the standard deviation of its logarithm: 0 for always the same, 1 for a long tail.
	Mean   Duration `json:"mean"`
	Spread float64  `json:"spread"`
	// Slice is the work between two yields, 100 µs to 1 min. Default 10 ms.
	Slice Duration `json:"slice"`
	// Keyed serialises the tasks of one partition.
	Keyed bool `json:"keyed"`
}

// Workload is what arrives at every node and, if it says so, how many nodes there are and what policies are to be judged. A
// file with Loads alone is enough.
type Workload struct {
	// Loads arrive at every partition, 1 to 100, each with a code of its own.
	Loads []Load `json:"loads"`
	// Nodes, Partitions and Workers are as in Options, which go before them. 0: left to Options.
	Nodes      int `json:"nodes,omitempty"`
	Partitions int `json:"partitions,omitempty"`
	Workers    int `json:"workers,omitempty"`
	// Policies are those to compare. nil: DefaultPolicies.
	Policies []Policy `json:"policies,omitempty"`
}

// DefaultWorkload is a node's: loading, statistics, garbage collection, checkpoints.
func DefaultWorkload() Workload {
	d := func(v time.Duration) Duration { return Duration(v) }
	return Workload{Loads: []Load{
		{Code: "load_private_log", Priority: threadpool.Common, Every: d(200 * time.Millisecond), Mean: d(4 * time.Millisecond), Spread: 0.5, Keyed: true},
		{Code: "disk_stat", Priority: threadpool.Low, Every: d(10 * time.Second), Mean: d(20 * time.Millisecond), Spread: 0.5},
		{Code: "gc_logs", Priority: threadpool.Low, Every: d(10 * time.Second), Mean: d(15 * time.Millisecond), Spread: 1, Keyed: true},
		{Code: "checkpoint", Priority: threadpool.Low, Every: d(2 * time.Minute), Mean: d(1500 * time.Millisecond), Spread: 0.7, Keyed: true},
	}}
}

// ReadWorkload reads a workload from JSON. Unknown fields are errors.
func ReadWorkload(r io.Reader) (Workload, error) {
	var w Workload
	dec := json.NewDecoder(io.LimitReader(r, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return w, fmt.Errorf("read workload: %w", plain(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return w, errors.New("read workload: something follows it")
	}
	return w, w.Validate()
}

// plain tells what is wrong with a workload without the names of Go's types.
func plain(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the file is empty")
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Errorf("a workload is an object, not a JSON %s", wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s can't be a JSON %s; durations are text such as \"10ms\", priorities low, common or high", wrong.Field, wrong.Value)
	}
	return err
}

// longest bounds the times of a workload, so that none that is drawn from them is too long to be added to another.
const longest = Duration(365 * 24 * time.Hour)

// Validate reports the first field out of range.
func (w Workload) Validate() error {
	if err := w.validateLoads(); err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	switch {
	case w.Policies != nil && len(w.Policies) == 0:
		return errors.New("workload: policies is empty; without it the usual ones are compared")
	case len(w.Policies) > 100:
		return fmt.Errorf("workload: %d policies are more than 100", len(w.Policies))
	case w.Nodes < 0 || w.Partitions < 0 || w.Workers < 0:
		return errors.New("workload: nodes, partitions and workers can't be negative")
	}
	names := map[string]bool{}
	for _, p := range w.Policies {
		if err := p.validate(w.Loads); err != nil {
			return fmt.Errorf("workload: %w", err)
		}
		if names[p.Name] {
			return fmt.Errorf("workload: two policies are called %s", p.Name)
		}
		names[p.Name] = true
	}
	return nil
}

func (w Workload) validateLoads() error {
	if len(w.Loads) == 0 || len(w.Loads) > 100 {
		return fmt.Errorf("%d loads are not within 1 and 100", len(w.Loads))
	}
	codes := map[string]bool{}
	for _, l := range w.Loads {
		switch {
		case l.Code == "":
			return errors.New("a load has no code")
		case !printable(l.Code):
			return fmt.Errorf("code %q has characters that can't be printed in a column", l.Code)
		case l.Priority > threadpool.High:
			return fmt.Errorf("%s: priority is out of range", l.Code)
		case l.Every < Duration(time.Millisecond) || l.Mean < Duration(time.Microsecond) || l.Every > longest || l.Mean > longest:
			return fmt.Errorf("%s: every must be 1ms to %v, mean 1µs to %v", l.Code, time.Duration(longest), time.Duration(longest))
		case math.IsNaN(l.Spread) || l.Spread < 0 || l.Spread > 3:
			return fmt.Errorf("%s: spread %v is not within 0 and 3", l.Code, l.Spread)
		case l.Slice != 0 && (l.Slice < Duration(100*time.Microsecond) || l.Slice > Duration(time.Minute)):
			return fmt.Errorf("%s: slice %v is not within 100µs and 1m", l.Code, time.Duration(l.Slice))
		case codes[l.Code]:
			return fmt.Errorf("two loads are called %s: results and policies tell loads apart by their codes", l.Code)
		}
		codes[l.Code] = true
	}
	return nil
}

// printable says whether a name fits into a column.
func printable(name string) bool {
	return len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) })
}

// Guards are threadpool.Guards; in JSON those left out are off, and the time is text.
type Guards struct {
	MaxWait       Duration `json:"max_wait"`
	LowShare      float64  `json:"low_share"`
	CommonReserve int      `json:"common_reserve"`
	HighReserve   int      `json:"high_reserve"`
}

func (g *Guards) pool() *threadpool.Guards {
	if g == nil {
		return nil
	}
	return &threadpool.Guards{MaxWait: time.Duration(g.MaxWait), LowShare: g.LowShare, CommonReserve: g.CommonReserve, HighReserve: g.HighReserve}
}

// Policy is a way to rank the codes.
type Policy struct {
	// Name is what results call it.
	Name string `json:"name"`
	// Priorities replace those of the workload, by code.
	Priorities map[string]threadpool.Priority `json:"priorities,omitempty"`
	// Guards are the pool's. nil: the defaults.
	Guards *Guards `json:"guards,omitempty"`
	// NoYield has tasks run to their end in one piece.
	NoYield bool `json:"no_yield,omitempty"`
}

// validate reports the first field out of range, for a workload of the given loads.
func (p *Policy) validate(loads []Load) error {
	if p.Name == "" {
		return errors.New("a policy has no name")
	}
	if !printable(p.Name) {
		return fmt.Errorf("policy %q has characters that can't be printed in a column", p.Name)
	}
	for _, code := range slices.Sorted(maps.Keys(p.Priorities)) {
		if !slices.ContainsFunc(loads, func(l Load) bool { return l.Code == code }) {
			return fmt.Errorf("policy %s: the workload has no code %s", p.Name, code)
		}
		if p.Priorities[code] > threadpool.High {
			return fmt.Errorf("policy %s: the priority of %s is out of range", p.Name, code)
		}
	}
	if g := p.Guards.pool(); g != nil {
		if err := g.Validate(); err != nil {
			return fmt.Errorf("policy %s: %w", p.Name, err)
		}
	}
	return nil
}

// DefaultPolicies are the ones to compare for a workload: its own levels under our rules; and without guards or yielding, its own
// levels, all at Common (first in first out), and Low and Common exchanged.
func DefaultPolicies(w Workload) []Policy {
	parity, reversed := map[string]threadpool.Priority{}, map[string]threadpool.Priority{}
	for _, l := range w.Loads {
		switch l.Priority {
		case threadpool.Low:
			parity[l.Code], reversed[l.Code] = threadpool.Common, threadpool.Common
		case threadpool.Common:
			reversed[l.Code] = threadpool.Low
		}
	}
	return []Policy{
		{Name: "common"},
		{Name: "strict", Guards: &Guards{}, NoYield: true},
		{Name: "parity", Priorities: parity, Guards: &Guards{}, NoYield: true},
		{Name: "low", Priorities: reversed, Guards: &Guards{}, NoYield: true},
	}
}

// Options configure Run.
type Options struct {
	// Nodes, 1 to 100,000, share Partitions, at least one each, at most 10,000,000, and so few of one node that they and the loads make
	// no more than 4,000,000 sources of tasks. Defaults: the workload's, else 10 and 64 a node.
	Nodes      int `json:"nodes"`
	Partitions int `json:"partitions"`
	// Workers is the number of slots of each node, 1 to 1024. Default: the workload's, else 4.
	Workers int `json:"workers"`
	// Length is the virtual time simulated, 1 s to 30 days. Default 1 min.
	Length time.Duration `json:"length_ns"`
	// Seed makes runs differ. Default 1.
	Seed uint64 `json:"seed"`
	// Workload defaults to DefaultWorkload, Policies to the workload's, else DefaultPolicies.
	Workload Workload `json:"workload"`
	Policies []Policy `json:"policies"`
	// Progress, if set, is told how many of all node simulations are done.
	Progress func(done, all int) `json:"-"`
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	if o.Workload.Loads == nil {
		o.Workload.Loads = DefaultWorkload().Loads
	}
	o.Nodes = cmp.Or(o.Nodes, o.Workload.Nodes, 10)
	o.Partitions = cmp.Or(o.Partitions, o.Workload.Partitions, 64*o.Nodes)
	o.Workers = cmp.Or(o.Workers, o.Workload.Workers, 4)
	o.Length = cmp.Or(o.Length, time.Minute)
	o.Seed = cmp.Or(o.Seed, 1)
	if o.Policies == nil {
		o.Policies = o.Workload.Policies
	}
	if o.Policies == nil {
		o.Policies = DefaultPolicies(o.Workload)
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
}

// maxSources bounds what one node has to remember, to some hundred megabytes.
const maxSources = 4_000_000

// Validate reports the first field out of range. It expects EnsureDefaults to have run.
func (o *Options) Validate() error {
	switch {
	case o.Nodes < 1 || o.Nodes > 100_000:
		return fmt.Errorf("simulate: %d nodes are not within 1 and 100,000", o.Nodes)
	case o.Partitions < o.Nodes || o.Partitions > 10_000_000:
		return fmt.Errorf("simulate: %d partitions are not within one a node and 10,000,000", o.Partitions)
	case o.Workers < 1 || o.Workers > 1024:
		return fmt.Errorf("simulate: %d workers are not within 1 and 1024", o.Workers)
	case o.Length < time.Second || o.Length > 30*24*time.Hour:
		return fmt.Errorf("simulate: length %v is not within 1s and 30 days", o.Length)
	}
	if n := (o.Partitions + o.Nodes - 1) / o.Nodes * len(o.Workload.Loads); n > maxSources {
		return fmt.Errorf("simulate: a node's partitions times the loads are %d, more than %d: take more nodes", n, maxSources)
	}
	if err := o.Workload.Validate(); err != nil {
		return err
	}
	for _, p := range o.Policies {
		if err := p.validate(o.Workload.Loads); err != nil {
			return fmt.Errorf("simulate: %w", err)
		}
	}
	return nil
}

// Names returns the names of all results.
func Names() []string { return []string{"code"} }

// Result is how one code fared under one policy, over all nodes.
type Result struct {
	// Name is one of Names.
	Name     string              `json:"name"`
	Policy   string              `json:"policy"`
	Code     string              `json:"code"`
	Priority threadpool.Priority `json:"priority"`
	// Submitted, Started and Finished count tasks; Rejected ones met a full queue.
	Submitted uint64 `json:"submitted"`
	Started   uint64 `json:"started"`
	Finished  uint64 `json:"finished"`
	Rejected  uint64 `json:"rejected"`
	// WaitMs is from submission to start, TotalMs from submission to finish.
	WaitMs  report.Quantiles `json:"wait_ms"`
	TotalMs report.Quantiles `json:"total_ms"`
	// OldestMs is the longest wait among the tasks that had not started in the end.
	OldestMs float64 `json:"oldest_waiting_ms"`
}

// Run simulates every policy on every node.
func Run(ctx context.Context, o Options) ([]Result, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var out []Result
	for pi := range o.Policies {
		tally := newTally(&o, &o.Policies[pi])
		for n := range o.Nodes {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			partitions := o.Partitions / o.Nodes
			if n < o.Partitions%o.Nodes {
				partitions++
			}
			s, err := newNode(&o, &o.Policies[pi], tally, n, partitions)
			if err != nil {
				return out, err
			}
			if err := s.run(ctx); err != nil {
				return out, err
			}
			o.Progress(pi*o.Nodes+n+1, len(o.Policies)*o.Nodes)
		}
		out = append(out, tally.results()...)
	}
	return out, nil
}
