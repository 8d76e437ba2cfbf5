package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// ValuePartition is a partition whose database is collected.
type ValuePartition interface {
	ID() uint32
	// DB is the database, nil while it is not open. The partition moves badger's
	// discard timestamp along; without that nothing here finds anything to do.
	DB() *badger.DB
	// Sweep removes what no key refers to, in slices, calling yield between them.
	Sweep(ctx context.Context, yield func(bytes int) error) error
}

// ValuesOptions are the options of Values.
type ValuesOptions struct {
	// Name tells it from others of its kind, which run on their own; default "values".
	Name       string
	Partitions []ValuePartition
	// Runner runs code gc_values. Required.
	Runner Runner
	// DiscardRatio is the share of a value log file that must be garbage before the
	// file is rewritten, above 0 and below 1; default 0.5.
	DiscardRatio float64
	// Paced, if set, makes of a run's turn one that spreads the work over time, so that
	// whoever is served meanwhile does not notice it; default the turn itself.
	Paced func(turn *threadpool.Turn) Turn
	// MaxRewrites bounds the files rewritten per partition and run; default 16.
	MaxRewrites int
	// Logger gets one line per event; nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills in the defaults.
func (o *ValuesOptions) EnsureDefaults() {
	o.Name = cmp.Or(o.Name, "values")
	o.DiscardRatio = cmp.Or(o.DiscardRatio, 0.5)
	o.MaxRewrites = cmp.Or(o.MaxRewrites, 16)
	if o.Paced == nil {
		o.Paced = func(turn *threadpool.Turn) Turn { return turn }
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate says what is wrong with the options.
func (o *ValuesOptions) Validate() error {
	switch {
	case o.Runner == nil:
		return errors.New("value gc options: Runner is required")
	case !(o.DiscardRatio > 0 && o.DiscardRatio < 1):
		return fmt.Errorf("value gc options: discard ratio %v is not between 0 and 1", o.DiscardRatio)
	case o.MaxRewrites < 1:
		return fmt.Errorf("value gc options: %d rewrites", o.MaxRewrites)
	}
	return nil
}

// ValuesStatus says what the collection of one partition's database did.
type ValuesStatus struct {
	Partition uint32 `json:"partition"`
	Runs      uint64 `json:"runs"`
	Rewrites  uint64 `json:"rewrites"` // value log files rewritten
	LastError string `json:"last_error,omitempty"`
}

// Values collects the garbage within databases.
type Values struct {
	o        ValuesOptions
	every    schedule
	rewrites prometheus.Counter

	// mu guards status; nothing is called with it held.
	mu     sync.Mutex
	status []ValuesStatus
}

// NewValues checks the options.
func NewValues(o ValuesOptions) (*Values, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	v := &Values{o: o, status: make([]ValuesStatus, len(o.Partitions)),
		rewrites: counter("value_log_rewrites_total", "Value log files rewritten because most of them was garbage.")}
	for i, p := range o.Partitions {
		v.status[i].Partition = p.ID()
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(v.rewrites)
	}
	return v, nil
}

// Start begins the periodic runs.
func (v *Values) Start(context.Context) error {
	return v.every.start(v.o.Runner, tasks.GCValues, v.o.Name, func(ctx context.Context, turn *threadpool.Turn) error {
		return onOwn(v.o.Paced(turn), func(turn Turn) error { return v.run(ctx, turn) })
	})
}

// Stop ends the runs and waits for the present one, at most until ctx ends.
func (v *Values) Stop(ctx context.Context) error { return v.every.halt(ctx) }

// Trigger asks for a run soon.
func (v *Values) Trigger() { v.every.trigger() }

// Status describes all partitions, in the order of the options.
func (v *Values) Status() []ValuesStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]ValuesStatus(nil), v.status...)
}

func (v *Values) run(ctx context.Context, turn Turn) error {
	var errs []error
	for i, p := range v.o.Partitions {
		if err := turn.Yield(0); err != nil {
			return err
		}
		db := p.DB()
		if db == nil {
			continue
		}
		rewrites, err := v.rewrite(db, turn)
		if err == nil {
			err = p.Sweep(ctx, turn.Yield)
		}
		v.mu.Lock()
		st := &v.status[i]
		st.Runs++
		st.Rewrites += rewrites
		st.LastError = ""
		if err != nil {
			st.LastError = err.Error()
		}
		v.mu.Unlock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			v.o.Logger.Warn("database not collected", "partition", p.ID(), "error", err)
			errs = append(errs, fmt.Errorf("collect database of partition %d: %w", p.ID(), err))
		}
	}
	return errors.Join(errs...)
}

// rewrite runs badger's value log collection until it finds nothing to do.
// badger picks files by their discard statistics alone.
func (v *Values) rewrite(db *badger.DB, turn Turn) (n uint64, err error) {
	if !canHelp(db) {
		return 0, nil
	}
	for n < uint64(v.o.MaxRewrites) {
		// One rewrite is one call of unknown length: it must not hold a slot.
		err := awaitCall(turn, func() error { return db.RunValueLogGC(v.o.DiscardRatio) })
		switch {
		case errors.Is(err, badger.ErrNoRewrite), errors.Is(err, badger.ErrRejected):
			return n, nil
		case err != nil:
			return n, err
		}
		n++
		v.rewrites.Inc()
		if err := turn.Yield(0); err != nil {
			return n, err
		}
	}
	return n, nil
}

// canHelp is false when the only value log file is the one being written,
// which badger never rewrites.
func canHelp(db *badger.DB) bool {
	o := db.Opts()
	if o.InMemory || o.ReadOnly {
		return false
	}
	entries, err := os.ReadDir(o.ValueDir)
	if err != nil {
		return false
	}
	files := 0
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".vlog" {
			files++
		}
	}
	return files > 1
}
