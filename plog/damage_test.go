package plog

import (
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// TestDamageIsToldOnce: a place that rots while the log is open is told and counted once, however it is read and how often.
func TestDamageIsToldOnce(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewMem()
	l, s := builtLog(t, mem, syncer)
	sealed := *l.segs[1]
	closeLog(t, l)
	// Behind the header of the first record, whose checksum covers it; and the header of the segment.
	for what, at := range map[string]int64{"record": segmentHeaderLen + frameHeaderLen + hardStateLen + recordHeaderLen + 5, "header": 30, "first frame": segmentHeaderLen + 9} {
		im := takeImage(t, mem)
		b := slices.Clone(im[segmentName(sealed.seq)])
		b[at] ^= 4
		for name, read := range map[string]func(*Log) error{
			"Reader": func(l *Log) error {
				r, err := l.NewReader(s.base + 1)
				for err == nil {
					_, err = r.Next()
				}
				_ = r.Close()
				return err
			},
			"Entries": func(l *Log) error { _, err := l.Entries(sealed.last, sealed.last+1, 1<<20); return err },
			"Term":    func(l *Log) error { _, err := l.Term(sealed.last - 1); return err },
			"Release": func(l *Log) error { return l.Release(sealed.last - 1) },
		} {
			if name == "Reader" && what == "header" {
				continue // a stream does not read it
			}
			var told []*ErrCorrupt
			reg := prometheus.NewRegistry()
			o := Options{Syncer: syncer, CacheBytes: 1, Metrics: NewMetrics(reg)}
			o.Damaged = func(e *ErrCorrupt) {
				if !l.mu.TryLock() {
					t.Errorf("%s, %s: told under the log's lock", what, name)
				} else {
					l.mu.Unlock()
				}
				told = append(told, e)
			}
			l = open(t, im.with(segmentName(sealed.seq), b).restore(t), o)
			l.SetCommitted(s.last())
			// Two terms in the segment, so that a term is looked up there.
			l.segs[1].firstTerm = 0
			for range 3 {
				var e *ErrCorrupt
				if err := read(l); !errors.As(err, &e) || e.Segment != sealed.seq {
					t.Fatalf("%s, %s: %v", what, name, err)
				}
				_, _ = l.Entries(s.base+1, s.last()+1, 1<<40)
			}
			if n := corruptions(t, reg); len(told) != 1 || n != 1 {
				t.Errorf("%s, %s: told %v, counted %v", what, name, told, n)
			}
			closeLog(t, l)
		}
	}
}

// TestDamageFoundByOpenIsItsErrorOnly.
func TestDamageFoundByOpenIsItsErrorOnly(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewMem()
	l, _ := builtLog(t, mem, syncer)
	name := segmentName(l.active().seq)
	closeLog(t, l)
	im := takeImage(t, mem)
	reg := prometheus.NewRegistry()
	o := Options{Syncer: syncer, Metrics: NewMetrics(reg), Damaged: func(e *ErrCorrupt) { t.Errorf("told of %v", e) }}
	if _, err := tryOpen(im.with(name, make([]byte, len(im[name]))).restore(t), o); !errors.As(err, new(*ErrCorrupt)) {
		t.Fatal(err)
	}
	if n := corruptions(t, reg); n != 1 {
		t.Errorf("counted %v", n)
	}
}

// corruptions is how many damaged places were counted, of all kinds.
func corruptions(t *testing.T, reg *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "replicanode_plog_corruptions_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}
