package plogbench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"replicanode/plog"
)

// trimBytes is how much is appended between two trims.
const trimBytes = 24 << 20

// warmUp is how long appends run before they count, after warmBytes were filled in: enough for a single log to come to reused space.
const (
	warmUp    = 200 * time.Millisecond
	warmBytes = 3 * trimBytes
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute), 3)
}

// recordsOf returns a batch of records that differ from each other.
func recordsOf(size, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, size)
		for j := range out[i] {
			out[i][j] = byte(i*131 + j)
		}
	}
	return out
}

// set fills in what a phase of d with so many calls says.
func (r *Result) set(d time.Duration, calls uint64, h *hdrhistogram.Histogram, allocs uint64) {
	r.Records = calls * uint64(r.Batch)
	r.PerSecond = float64(r.Records) / d.Seconds()
	r.MBPerSecond = r.PerSecond * float64(r.RecordBytes) / 1e6
	r.P50, r.P99, r.Max = ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99)), ms(h.Max())
	r.Allocs = float64(allocs) / float64(max(r.Records, 1))
}

func ms(nanoseconds int64) float64 { return float64(nanoseconds) / 1e6 }

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// contestant is a subject, or as many as there are logs, with its appenders, open while others have their turn.
type contestant struct {
	appenders []appender
	appended  atomic.Int64
	close     func() error
}

// measured is what appending took.
type measured struct {
	took    time.Duration
	calls   uint64
	mallocs uint64
	h       *hdrhistogram.Histogram
}

// appender is one goroutine's part of an append phase.
type appender struct {
	s       Subject
	records [][]byte
	h       *hdrhistogram.Histogram
	calls   uint64
	err     error
}

// openLog has sc.Appenders append to one log.
func openLog(_ context.Context, sc *scenario, f Factory, dir string) (*contestant, error) {
	s, err := f.Open(dir)
	if err != nil {
		return nil, err
	}
	if log, ok := s.(*ours); ok {
		log.alone = sc.Appenders == 1
	}
	return newContestant(sc, []Subject{s}, s.Close), nil
}

// openLogs has each appender append to a log of its own. The factory named first shares one Syncer.
func openLogs(ctx context.Context, sc *scenario, f Factory, dir string) (c *contestant, err error) {
	open, stop := f.Open, func() error { return nil }
	if f.Name == sc.subjects[0].Name {
		journal, _, err := plog.OpenJournal(dir+"-journal", plog.JournalOptions{LogDir: func(uint32) string { return dir }})
		if err != nil {
			return nil, err
		}
		syncer := plog.NewSyncer(plog.SyncerOptions{Journal: journal})
		if err := syncer.Start(ctx); err != nil {
			return nil, err
		}
		open, stop = Ours(syncer).Open, func() error { return syncer.Stop(context.WithoutCancel(ctx)) }
	}
	var subjects []Subject
	closeAll := func() (err error) {
		for _, s := range subjects {
			err = errors.Join(err, s.Close())
		}
		return errors.Join(err, stop())
	}
	for i := range sc.Logs {
		s, err := open(dir + string(rune('A'+i/26)) + string(rune('A'+i%26)))
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		s.(*ours).alone = true
		subjects = append(subjects, s)
	}
	return newContestant(sc, subjects, closeAll), nil
}

func newContestant(sc *scenario, subjects []Subject, close func() error) *contestant {
	c := &contestant{appenders: make([]appender, sc.Appenders), close: close}
	for i := range c.appenders {
		c.appenders[i] = appender{s: subjects[i%len(subjects)], records: recordsOf(sc.RecordBytes, sc.Batch), h: newHistogram()}
	}
	return c
}

// turn appends for d and adds what that took to m.
func (c *contestant) turn(ctx context.Context, d time.Duration, m *measured) error {
	before, start := mallocs(), time.Now()
	var wg sync.WaitGroup
	for i := range c.appenders {
		a := &c.appenders[i]
		a.calls = 0
		a.h.Reset()
		wg.Go(func() { a.run(ctx, start.Add(d), &c.appended) })
	}
	wg.Wait()
	m.took += time.Since(start)
	m.mallocs += mallocs() - before
	for i := range c.appenders {
		if err := c.appenders[i].err; err != nil {
			return err
		}
		m.calls += c.appenders[i].calls
		m.h.Merge(c.appenders[i].h)
	}
	return ctx.Err()
}

// warm brings c to where it would be after a while.
func (c *contestant) warm(ctx context.Context, sc *scenario) error {
	if s := c.appenders[0].s; sc.Appenders == 1 {
		records := recordsOf(sc.RecordBytes, fillRecords)
		size := int64(fillRecords * sc.RecordBytes)
		for n := int64(0); n < warmBytes && ctx.Err() == nil; n += size {
			if err := s.Fill(records); errors.Is(err, errors.ErrUnsupported) {
				break
			} else if err != nil {
				return err
			}
			if n/trimBytes != (n+size)/trimBytes {
				if err := errors.Join(s.Flush(), s.Trim()); err != nil {
					return err
				}
			}
		}
	}
	return c.turn(ctx, warmUp, &measured{h: newHistogram()})
}

func (m *measured) result(sc *scenario, name string) Result {
	r := sc.Result
	r.set(m.took, m.calls, m.h, m.mallocs)
	r.Name, r.Subject = sc.Scenario, name
	return r
}

// turns is how many turns each subject has in a round of appends. A disk may be half as fast from one second to the next: what is
// compared has to be measured within less than that. But where many wait for each other, a turn has to be long beside their waiting.
func (sc *scenario) turns() int {
	if sc.Appenders > 1 {
		return 4
	}
	return 20
}

// contest measures one round of all subjects of sc, which take short turns, and adds it to what was measured of each before.
func contest(ctx context.Context, o *Options, sc *scenario, dir string, totals []measured) (err error) {
	var cs []*contestant
	defer func() {
		for _, c := range cs {
			err = errors.Join(err, c.close())
		}
	}()
	for i, f := range sc.subjects {
		c, err := sc.open(ctx, sc, f, filepath.Join(dir, fmt.Sprint("log", i)))
		if err != nil {
			return fmt.Errorf("open %s: %w", f.Name, err)
		}
		cs = append(cs, c)
		if err := c.warm(ctx, sc); err != nil {
			return fmt.Errorf("warm up %s: %w", f.Name, err)
		}
	}
	turns := sc.turns()
	for turn := range turns {
		for i := range cs {
			at := (i + turn) % len(cs)
			if err := cs[at].turn(ctx, o.Round/time.Duration(turns), &totals[at]); err != nil {
				return fmt.Errorf("append to %s: %w", sc.subjects[at].Name, err)
			}
		}
	}
	return nil
}

func (a *appender) run(ctx context.Context, end time.Time, appended *atomic.Int64) {
	bytes := int64(len(a.records) * len(a.records[0]))
	for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
		if a.err = a.s.Append(a.records); a.err != nil {
			return
		}
		then := time.Now()
		_ = a.h.RecordValue(then.Sub(now).Nanoseconds())
		a.calls++
		if total := appended.Add(bytes); total/trimBytes != (total-bytes)/trimBytes {
			if a.err = a.s.Trim(); a.err != nil {
				return
			}
		}
		now = then
	}
}

// fillRecords is how many records are filled in at a time.
const fillRecords = 256

// filled makes a log with bytes of data.
func filled(ctx context.Context, sc *scenario, f Factory, dir string, bytes int64) (Subject, error) {
	s, err := f.Open(dir)
	if err != nil {
		return nil, err
	}
	records := recordsOf(sc.RecordBytes, fillRecords)
	for n := int64(0); n < bytes && err == nil; n += fillRecords * int64(sc.RecordBytes) {
		if err = s.Fill(records); err == nil {
			err = ctx.Err()
		}
	}
	if err == nil {
		err = s.Flush()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func measureReadCached(ctx context.Context, o *Options, sc *scenario, f Factory, dir string) (r Result, err error) {
	s, err := filled(ctx, sc, f, dir, o.ReadBytes)
	if err != nil {
		return sc.Result, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return readFor(ctx, sc, o.Round, s.Read)
}

// readFor repeats read for d, at least once.
func readFor(ctx context.Context, sc *scenario, d time.Duration, read func() (uint64, error)) (Result, error) {
	r, h, n := sc.Result, newHistogram(), uint64(0)
	r.Batch = 1
	var took time.Duration
	before := mallocs()
	for (took < d || n == 0) && ctx.Err() == nil {
		start := time.Now()
		m, err := read()
		if err != nil {
			return r, err
		}
		d := time.Since(start)
		took += d
		_ = h.RecordValue(d.Nanoseconds())
		n += m
	}
	r.set(took, n, h, mallocs()-before)
	return r, ctx.Err()
}

// measureReadCold reads a log once whose pages were dropped from the cache.
func measureReadCold(ctx context.Context, o *Options, sc *scenario, f Factory, dir string) (r Result, err error) {
	s, err := filled(ctx, sc, f, dir, o.ReadBytes)
	if err != nil {
		return sc.Result, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if raw, ok := s.(*rawReader); ok {
		n, err := raw.Read()
		if err != nil {
			return sc.Result, err
		}
		return readFor(ctx, sc, 0, func() (uint64, error) { return n, raw.raw() })
	}
	if err := dropCaches(dir); err != nil {
		return sc.Result, err
	}
	return readFor(ctx, sc, 0, s.Read)
}

// measureOpen opens a large log again and again; p50 is what counts.
func measureOpen(ctx context.Context, o *Options, sc *scenario, f Factory, dir string) (Result, error) {
	s, err := filled(ctx, sc, f, dir, o.OpenBytes)
	if err != nil {
		return sc.Result, err
	}
	if err := s.Close(); err != nil {
		return sc.Result, err
	}
	r, h, n := sc.Result, newHistogram(), uint64(0)
	r.Batch = 1
	var took time.Duration
	for (took < o.Round/4 || n == 0) && ctx.Err() == nil {
		start := time.Now()
		s, err := f.Open(dir)
		if err != nil {
			return r, err
		}
		d := time.Since(start)
		took += d
		_ = h.RecordValue(d.Nanoseconds())
		n++
		if err := s.Close(); err != nil {
			return r, err
		}
	}
	r.set(took, n, h, 0)
	r.MBPerSecond = 0
	return r, ctx.Err()
}
