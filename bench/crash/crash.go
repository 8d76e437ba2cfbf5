package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicanode/bench/process"
	"replicanode/bench/report"
	"replicanode/internal/pause"
	"replicanode/server/admin"
)

const (
	primaryCluster = 1
	stopTimeout    = 10 * time.Second
	pollInterval   = 20 * time.Millisecond
)

// Death is who dies in a round, and how.
type Death string

const (
	KillPrimary Death = "primary"      // SIGKILL
	KillBackup  Death = "backup"       // SIGKILL, the load goes on
	KillBoth    Death = "both"         // SIGKILL, one after the other
	StopPrimary Death = "stop primary" // SIGTERM under load, which must end the process in 10 s with exit code 0
	// ReplaceBackup: SIGKILL, its folder is lost, and a new backup is restored from checkpoints of the primary, all under load.
	ReplaceBackup Death = "replace backup"
)

func (d Death) name() string { return strings.ReplaceAll(string(d), " ", "_") }

// deaths is how often each is drawn.
var deaths = []struct {
	death Death
	share float64
}{{KillPrimary, 0.35}, {KillBackup, 0.2}, {KillBoth, 0.25}, {StopPrimary, 0.1}, {ReplaceBackup, 0.1}}

// Round is what happened in one round.
type Round struct {
	Name      string  `json:"name"` // as Death, without spaces
	Round     int     `json:"round"`
	Death     Death   `json:"death"`
	LoadMs    float64 `json:"load_ms"`     // until somebody died
	Acked     uint64  `json:"acked"`       // operations acknowledged in this round
	Refused   uint64  `json:"refused"`     // answered with an error
	InFlight  int     `json:"in_flight"`   // on their way as the load ended
	RestartMs float64 `json:"restart_ms"`  // until the primary, or the backup when only that died, served again
	CatchUpMs float64 `json:"catch_up_ms"` // until the backup showed what the primary has
}

// Report is what a run found.
type Report struct {
	Rounds  []Round `json:"rounds"`
	Acked   uint64  `json:"acked"` // operations acknowledged, all found on both nodes
	Seconds float64 `json:"seconds"`

	options Options
}

// Names returns the names of all results: a round has that of its death.
func Names() []string {
	var names []string
	for _, d := range deaths {
		names = append(names, d.death.name())
	}
	return names
}

// Document is the JSON form: config, machine and one result per round.
func (r Report) Document() report.Document {
	rounds := slices.Clone(r.Rounds)
	for i := range rounds {
		rounds[i].Name = rounds[i].Death.name()
	}
	return report.Document{Config: r.options, Machine: report.ThisMachine(r.options.Dir), Results: rounds}
}

// Write prints one line for each kind of death.
func (r Report) Write(w io.Writer) error {
	if len(r.Rounds) == 0 {
		return nil
	}
	t := report.NewTable("who died", "rounds", "acknowledged", "in flight", "restart ms max", "catch-up ms max")
	for _, d := range deaths {
		var n, inFlight int
		var acked uint64
		var restart, catchUp float64
		for _, round := range r.Rounds {
			if round.Death == d.death {
				n, inFlight, acked = n+1, inFlight+round.InFlight, acked+round.Acked
				restart, catchUp = max(restart, round.RestartMs), max(catchUp, round.CatchUpMs)
			}
		}
		t.Row(d.death, n, acked, inFlight, report.Millis(restart), report.Millis(catchUp))
	}
	if err := t.Write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d rounds in %.0f s with seed %d: all %d acknowledged writes are on both nodes, none took effect twice\n",
		len(r.Rounds), r.Seconds, r.options.Seed, r.Acked)
	return err
}

// run is a run in progress.
type run struct {
	opts            Options
	rng             *rand.Rand
	fleet           *fleet
	place           func(node string) string // the folder that a node's folder is made in
	primary, backup *process.Process
}

// Run makes all rounds. It writes progress to w, which may be nil. The report holds the rounds that were finished; a
// *ViolationError ends the run.
func Run(ctx context.Context, o Options, w io.Writer) (rep Report, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return Report{}, err
	}
	begun := time.Now()
	progress := report.NewProgress(w, o.Rounds)
	defer progress.Close()
	progress.Note("seed %d", o.Seed)
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "replicanode-crash-"); err != nil {
			return Report{}, fmt.Errorf("make folder: %w", err)
		}
		defer func() {
			if errors.As(err, new(*ViolationError)) {
				progress.Note("the nodes' folders and logs are kept in %s", o.Dir)
				return
			}
			err = errors.Join(err, os.RemoveAll(o.Dir))
		}()
	}
	rep.options = o
	r := &run{opts: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), fleet: newFleet(o), place: func(string) string { return o.Dir }}
	defer r.killAll()
	if err := r.startNodes(ctx); err != nil {
		return rep, err
	}
	for i := 1; i <= o.Rounds && ctx.Err() == nil; i++ {
		death := r.draw()
		progress.Step("%s dies", death)
		round, err := r.round(ctx, i, death)
		if err != nil {
			return rep, err
		}
		rep.Rounds = append(rep.Rounds, round)
		rep.Acked += round.Acked
		rep.Seconds = time.Since(begun).Seconds()
	}
	return rep, ctx.Err()
}

func (r *run) startNodes(ctx context.Context) error {
	args := append([]string{"--partitions", strconv.Itoa(r.opts.Partitions)}, r.opts.NodeArgs...)
	node := func(name string, more ...string) (*process.Process, error) {
		return process.Start(ctx, process.Options{Binary: r.opts.Binary, Dir: filepath.Join(r.place(name), name), Args: append(more, args...)})
	}
	var err error
	// The backup's cluster id is its own choice: a restored one has a new one.
	if r.backup, err = node("backup"); err != nil {
		return err
	}
	r.primary, err = node("primary", "--cluster-id", strconv.Itoa(primaryCluster), "--duplicate-to", "backup="+r.backup.Peer())
	return err
}

func (r *run) killAll() {
	for _, p := range []*process.Process{r.primary, r.backup} {
		if p != nil {
			_ = p.Kill()
		}
	}
}

func (r *run) draw() Death {
	x := r.rng.Float64()
	for _, d := range deaths {
		if x -= d.share; x < 0 {
			return d.death
		}
	}
	return deaths[0].death
}

func (r *run) round(ctx context.Context, n int, death Death) (Round, error) {
	round := Round{Round: n, Death: death}
	acked, refused := r.fleet.acked.Load(), r.fleet.refused.Load()
	begun := time.Now()
	r.fleet.start(r.primary.Listen())
	err := r.pause(ctx)
	round.LoadMs = report.DurationMillis(time.Since(begun))
	var restart time.Duration
	if err == nil {
		restart, err = r.die(ctx, death)
	}
	wrong, broken := r.fleet.stop()
	switch {
	case wrong != nil:
		return round, &ViolationError{Round: n, Node: "primary", Detail: wrong.Error()}
	case err != nil:
		return round, fmt.Errorf("round %d: %w", n, err)
	case broken != nil && (death == KillBackup || death == ReplaceBackup || !brokenConnection(broken)):
		return round, &ViolationError{Round: n, Node: "primary", Detail: "it does not answer although it lives: " + broken.Error()}
	}
	round.Acked, round.Refused = r.fleet.acked.Load()-acked, r.fleet.refused.Load()-refused
	round.InFlight = r.fleet.inFlight()
	if restart == 0 {
		if restart, err = r.restart(ctx, death); err != nil {
			return round, fmt.Errorf("round %d: %w", n, err)
		}
	}
	round.RestartMs = report.DurationMillis(restart)
	return round, r.verify(ctx, &round)
}

// pause lets the load run for a random while.
func (r *run) pause(ctx context.Context) error {
	return pause.For(ctx, r.opts.MinLoad+time.Duration(r.rng.Int64N(int64(r.opts.MaxLoad-r.opts.MinLoad)+1)))
}

// die ends who is to die. The backup is started again under load, which die reports as the time that it took.
func (r *run) die(ctx context.Context, death Death) (restart time.Duration, err error) {
	switch death {
	case KillPrimary:
		return 0, r.primary.Kill()
	case StopPrimary:
		stop, cancel := context.WithTimeout(ctx, stopTimeout)
		defer cancel()
		return 0, r.primary.Terminate(stop)
	case KillBoth:
		first, second := r.primary, r.backup
		if r.rng.Uint32()&1 == 0 {
			first, second = second, first
		}
		return 0, errors.Join(first.Kill(), second.Kill())
	case ReplaceBackup:
		return r.replaceBackup(ctx)
	}
	if err := r.backup.Kill(); err != nil {
		return 0, err
	}
	if err := r.pause(ctx); err != nil {
		return 0, err
	}
	begun := time.Now()
	if r.backup, err = process.Start(ctx, r.backup.Again()); err != nil {
		return 0, err
	}
	restart = time.Since(begun)
	return restart, r.pause(ctx)
}

// restart starts the dead nodes again, in random order.
func (r *run) restart(ctx context.Context, death Death) (primary time.Duration, err error) {
	backupFirst := death == KillBoth && r.rng.Uint32()&1 == 0
	if backupFirst {
		if r.backup, err = process.Start(ctx, r.backup.Again()); err != nil {
			return 0, err
		}
	}
	begun := time.Now()
	if r.primary, err = process.Start(ctx, r.primary.Again()); err != nil {
		return 0, err
	}
	primary = time.Since(begun)
	if death == KillBoth && !backupFirst {
		r.backup, err = process.Start(ctx, r.backup.Again())
	}
	return primary, err
}

// verify compares both nodes with what was acknowledged.
func (r *run) verify(ctx context.Context, round *Round) error {
	if err := r.fleet.compare(ctx, r.primary.Listen()); err != nil {
		return r.judge(round.Round, "primary", err)
	}
	want, err := readContent(ctx, r.primary.Listen(), r.opts.Partitions)
	if err != nil {
		return r.judge(round.Round, "primary", err)
	}
	begun := time.Now()
	limit, cancel := context.WithTimeout(ctx, r.opts.CatchUpTimeout)
	defer cancel()
	client := admin.NewClient(r.primary.Admin(), "")
	defer client.Close()
	for {
		claimed := nothingToShip(ctx, client)
		err := r.compareBackup(ctx, want)
		if err == nil {
			round.CatchUpMs = report.DurationMillis(time.Since(begun))
			return nil
		}
		if !errors.As(err, new(mismatch)) || claimed || limit.Err() != nil {
			return r.judge(round.Round, "backup", err)
		}
		select {
		case <-time.After(pollInterval):
		case <-limit.Done():
		}
	}
}

// compareBackup compares the backup with what was acknowledged and with all that the primary holds.
func (r *run) compareBackup(ctx context.Context, want content) error {
	if err := r.fleet.compare(ctx, r.backup.Listen()); err != nil {
		return err
	}
	got, err := readContent(ctx, r.backup.Listen(), r.opts.Partitions)
	if err != nil {
		return err
	}
	return want.differs(got)
}

// nothingToShip asks the primary whether the backup has everything. When it says so, it must be true.
func nothingToShip(ctx context.Context, client *admin.Client) bool {
	answer, err := admin.Get[struct {
		Pipelines []struct {
			State string `json:"state"`
			Lag   struct {
				Decrees uint64 `json:"decrees"`
			} `json:"lag"`
		} `json:"pipelines"`
	}](ctx, client, "/v1/duplications")
	for _, p := range answer.Pipelines {
		if p.State != "shipping" || p.Lag.Decrees > 0 {
			return false
		}
	}
	return err == nil && len(answer.Pipelines) > 0
}

// judge tells a violation from a failure of the comparison itself.
func (r *run) judge(round int, node string, err error) error {
	if errors.As(err, new(mismatch)) {
		return &ViolationError{Round: round, Node: node, Detail: err.Error()}
	}
	dead := errors.Join(r.primary.Err(), r.backup.Err())
	return fmt.Errorf("round %d: compare the %s: %w", round, node, errors.Join(err, dead))
}
