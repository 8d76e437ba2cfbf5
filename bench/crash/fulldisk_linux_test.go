package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"replicanode/bench/process"
	"replicanode/internal/fixture"
	"replicanode/server/admin"
)

const smallDiskBytes = 256 << 20

// smallDisk mounts a file system of its own; only the superuser can.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDiskBytes)); err != nil {
		t.Skipf("a file system cannot be mounted, so there is none to fill: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func filler(disk string) string { return filepath.Join(disk, "filler") }

func free(t *testing.T, disk string) {
	t.Helper()
	if err := os.Remove(filler(disk)); err != nil {
		t.Fatal(err)
	}
}

// await asks until ok says yes.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// grows waits until a counter has risen by some.
func grows(t *testing.T, what string, counter func() uint64, by uint64) {
	t.Helper()
	target := counter() + by
	await(t, what, func() bool { return counter() >= target })
}

// Two nodes, each on a small disk of its own, whose disks fill to the last byte under load and become free again: reads are served,
// what was acknowledged is there, exactly once, on both, and writes resume by themselves.
func TestDisksThatFillUpUnderLoad(t *testing.T) {
	ctx := context.Background()
	disks := map[string]string{"primary": smallDisk(t), "backup": smallDisk(t)}
	o := Options{Binary: fixture.Program(t), Dir: t.TempDir(), Partitions: 2, Clients: 4, Seed: uint64(time.Now().UnixNano())}
	o.EnsureDefaults()
	r := &run{opts: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), fleet: newFleet(o), place: func(node string) string { return disks[node] }}
	r.fleet.persistent = true
	defer r.killAll()
	if err := r.startNodes(ctx); err != nil {
		t.Fatal(err)
	}
	rounds := 1
	if os.Getenv("REPLICANODE_STRESS") != "" {
		rounds = 10
	}
	for n := range rounds {
		for i, step := range []func(*testing.T, *run, map[string]string){fillPrimary, killFullPrimary, fillBackup, fillBoth} {
			round := Round{Round: 10*n + i + 1}
			step(t, r, disks)
			if err := r.verify(ctx, &round); err != nil {
				t.Fatalf("seed %d, round %d: %v", o.Seed, round.Round, err)
			}
			t.Logf("round %d: %d acknowledged, %d refused so far, caught up in %.0f ms", round.Round, r.fleet.acked.Load(), r.fleet.refused.Load(), round.CatchUpMs)
		}
	}
}

// loadAndFill starts the load and fills a disk until operations are refused.
func loadAndFill(t *testing.T, r *run, disk string) {
	t.Helper()
	r.fleet.start(r.primary.Listen())
	grows(t, "operations are acknowledged", r.fleet.acked.Load, 2000)
	refused := r.fleet.refused.Load()
	await(t, "operations are refused", func() bool {
		fixture.FillDisk(t, filler(disk))
		return r.fleet.refused.Load() > refused+100
	})
}

// serves checks that a full node still answers reads and operators.
func serves(t *testing.T, p *process.Process) {
	t.Helper()
	c := connect(p.Listen())
	defer c.Close()
	if err := c.MGet(context.Background(), "a", "b", "c", "d").Err(); err != nil {
		t.Errorf("a read on a full disk: %v", err)
	}
	client := admin.NewClient(p.Admin(), "")
	defer client.Close()
	if _, err := admin.Get[admin.Readiness](context.Background(), client, "/readyz"); err != nil {
		t.Errorf("readyz on a full disk: %v", err)
	}
}

func stopLoad(t *testing.T, r *run) {
	t.Helper()
	if wrong, broken := r.fleet.stop(); wrong != nil || broken != nil {
		t.Fatal(errors.Join(wrong, broken))
	}
}

func fillPrimary(t *testing.T, r *run, disks map[string]string) {
	loadAndFill(t, r, disks["primary"])
	serves(t, r.primary)
	client := admin.NewClient(r.primary.Admin(), "")
	defer client.Close()
	stopLoad(t, r)
	await(t, "the backup has everything although the primary's disk is full", func() bool { return nothingToShip(t.Context(), client) })
	r.fleet.start(r.primary.Listen())
	free(t, disks["primary"])
	grows(t, "writes resume", r.fleet.acked.Load, 2000)
	stopLoad(t, r)
}

func killFullPrimary(t *testing.T, r *run, disks map[string]string) {
	loadAndFill(t, r, disks["primary"])
	if err := r.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if wrong, _ := r.fleet.stop(); wrong != nil {
		t.Fatal(wrong)
	}
	free(t, disks["primary"])
	var err error
	if r.primary, err = process.Start(t.Context(), r.primary.Again()); err != nil {
		t.Fatal(err)
	}
}

// fillBackup: the primary's clients notice nothing.
func fillBackup(t *testing.T, r *run, disks map[string]string) {
	r.fleet.start(r.primary.Listen())
	fixture.FillDisk(t, filler(disks["backup"]))
	refused := r.fleet.refused.Load()
	grows(t, "operations are acknowledged while the backup is full", r.fleet.acked.Load, 20_000)
	fixture.FillDisk(t, filler(disks["backup"]))
	serves(t, r.backup)
	stopLoad(t, r)
	if n := r.fleet.refused.Load() - refused; n > 0 {
		t.Errorf("%d operations refused while only the backup's disk was full", n)
	}
	free(t, disks["backup"])
}

func fillBoth(t *testing.T, r *run, disks map[string]string) {
	loadAndFill(t, r, disks["primary"])
	fixture.FillDisk(t, filler(disks["backup"]))
	serves(t, r.primary)
	serves(t, r.backup)
	free(t, disks["primary"])
	grows(t, "writes resume", r.fleet.acked.Load, 2000)
	free(t, disks["backup"])
	stopLoad(t, r)
}
