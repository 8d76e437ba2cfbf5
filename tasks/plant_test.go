package tasks

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"replicanode/threadpool"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// plant is a node as the controller sees it: what its levers do to its signals, with delay and seeded noise.
type plant struct {
	rnd     *rand.Rand
	levels  map[Code]threadpool.Priority
	low     float64
	moves   int
	history []signalsAt

	lag     float64 // seconds
	free    float64 // share
	storm   float64 // how much of Low's work is offered, 0 to 1
	load    float64 // clients' load, 0 to 1
	write   float64 // bytes written, as the share of the disk lost per second
	limit   Limit
	lagNeed float64 // slots that loading needs to keep up, as a share of all
	p99     float64
	wait    float64
}

type signalsAt struct{ lag, p99, wait, free float64 }

func newPlant(seed uint64) *plant {
	p := &plant{rnd: rand.New(rand.NewPCG(seed, 7)), low: 1, free: 0.5, limit: LimitNone, load: 0.3}
	p.levels = map[Code]threadpool.Priority{}
	for _, s := range DefaultSpecs() {
		p.levels[s.Code] = s.Priority
	}
	return p
}

func (p *plant) moveLevel(c Code, to threadpool.Priority, _ bool) { p.levels[c] = to; p.moves++ }
func (p *plant) shrinkLow(part float64)                           { p.low = part; p.moves++ }

// step lets dt seconds pass.
func (p *plant) step(dt float64) {
	noise := func() float64 { return 1 + 0.05*p.rnd.NormFloat64() }
	// Loading: at High it gets all it needs; at Common it competes with other Common work.
	got := 0.6
	if p.levels[LoadPrivateLog] == threadpool.High {
		got = 1.2
	}
	if p.limit == LimitRemote {
		got = 0.5
	}
	p.lag = max(0, p.lag+dt*(p.lagNeed-got)*noise())
	// Clients feel their own load and what Low moves.
	p.p99 = (0.005 + 0.01*p.load + 0.12*p.load*p.storm*p.low) * noise()
	p.wait = (0.002 + 0.03*p.storm*p.low) * noise()
	// GC frees more at High; loading and Low's share only a little.
	gc := 0.0005
	if p.levels[GCLogs] == threadpool.High {
		gc = 0.01
	}
	p.free = min(0.9, max(0, p.free+dt*(gc-p.write)))
	p.history = append(p.history, signalsAt{p.lag, p.p99, p.wait, p.free})
}

// signals are what was measured half a second ago.
func (p *plant) signals(now time.Time) Signals {
	if len(p.history) == 0 {
		return Signals{}
	}
	s := p.history[max(0, len(p.history)-3)]
	limit := p.limit
	if limit == LimitNone && s.lag > 0.5 {
		limit = LimitScheduling
	}
	return Signals{
		Lag: Measured(s.lag, now), LagLimit: limit, CommonWait: Measured(s.wait, now), ForegroundWrite: Measured(s.p99, now),
		DiskFree: Measured(s.free, now), CheckpointAge: Measured(0, now), LogBytes: Measured(0, now),
	}
}

// loop runs a policy against a plant.
type loop struct {
	*plant
	policy    *policy
	now       time.Time
	decisions []AdaptiveDecision
	series    map[string][]float64
}

func newLoop(seed uint64) *loop {
	l := &loop{plant: newPlant(seed), now: time.Unix(1000, 0), series: map[string][]float64{}}
	var o AdaptiveOptions
	o.EnsureDefaults()
	configured := map[Code]threadpool.Priority{}
	for _, s := range DefaultSpecs() {
		configured[s.Code] = s.Priority
	}
	l.policy = newPolicy(o, l.plant, func(c Code) (threadpool.Priority, bool) { p, ok := configured[c]; return p, ok },
		func(d AdaptiveDecision) { l.decisions = append(l.decisions, d) })
	return l
}

// run lets d pass under control; each is called before every tick, and may change signals.
func (l *loop) run(d time.Duration, each func(elapsed time.Duration, s *Signals)) {
	for elapsed := time.Duration(0); elapsed < d; elapsed += l.policy.o.Tick {
		l.plant.step(l.policy.o.Tick.Seconds())
		s := l.plant.signals(l.now)
		if each != nil {
			each(elapsed, &s)
		}
		l.policy.step(l.now, s)
		l.now = l.now.Add(l.policy.o.Tick)
		l.record("lag seconds", l.lag)
		l.record("write p99 ms", l.p99*1000)
		l.record("disk free %", l.free*100)
		l.record("low part %", l.low*100)
		l.record("load level", float64(l.levels[LoadPrivateLog]))
		l.record("gc level", float64(l.levels[GCLogs]))
	}
}

func (l *loop) record(name string, v float64) { l.series[name] = append(l.series[name], v) }

// plot draws a series as rows of columns, with the highest value of each column's stretch.
func plot(name string, v []float64) string {
	const width, height = 100, 8
	cols := make([]float64, width)
	top := 0.0
	for i := range cols {
		for j := i * len(v) / width; j < (i+1)*len(v)/width; j++ {
			cols[i] = math.Max(cols[i], v[j])
		}
		top = math.Max(top, cols[i])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (0 to %.4g)\n", name, top)
	for row := height; row > 0; row-- {
		line := make([]byte, width)
		for i := range cols {
			line[i] = ' '
			if top > 0 && cols[i]/top*height > float64(row)-0.5 {
				line[i] = '#'
			}
		}
		b.WriteString("|" + strings.TrimRight(string(line), " ") + "\n")
	}
	b.WriteString("+" + strings.Repeat("-", width) + "\n")
	return b.String()
}

// golden compares the plots and decisions of a run with testdata.
func (l *loop) golden(t *testing.T, name string) {
	t.Helper()
	var b strings.Builder
	for _, s := range []string{"lag seconds", "write p99 ms", "disk free %", "low part %", "load level", "gc level"} {
		b.WriteString(plot(s, l.series[s]))
	}
	start := time.Unix(1000, 0)
	for _, d := range l.decisions {
		fmt.Fprintf(&b, "%7.2fs %-22s %-16s %s -> %s\n", d.At.Sub(start).Seconds(), d.Reason, d.Lever, d.From, d.To)
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != b.String() {
		t.Errorf("%s differs from what happened; run with -update and look at the difference:\n%s", path, b.String())
	}
}
