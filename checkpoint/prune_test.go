package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"
)

// TestObsoleteKeepsWhatIsNeeded checks the rules on random chains with random damage.
func TestObsoleteKeepsWhatIsNeeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		n := rapid.IntRange(0, 12).Draw(t, "n")
		var infos []Info
		for i := range n {
			m := &Manifest{Decree: uint64(i + 1), CRC: fmt.Sprint(i + 1), Created: now.Add(-time.Duration(n-i) * time.Hour)}
			if i > 0 && rapid.Bool().Draw(t, "incremental") {
				m.Parent = m.Decree - 1
				m.ParentCRC = fmt.Sprint(m.Parent)
			}
			info := Info{Decree: m.Decree, Manifest: m}
			switch rapid.IntRange(0, 7).Draw(t, "damage") {
			case 0:
				info.Manifest, info.Err = nil, &CorruptError{}
			case 1:
				info.Manifest, info.Err = nil, errors.New("could not be read just now")
			}
			infos = append(infos, info)
		}
		r := Retention{KeepLast: rapid.IntRange(1, 4).Draw(t, "keep"), KeepFor: time.Duration(rapid.IntRange(0, 5).Draw(t, "hours")) * time.Hour}
		obsolete := r.Obsolete(infos, nil, now)
		left := slices.DeleteFunc(slices.Clone(infos), func(i Info) bool {
			return slices.ContainsFunc(obsolete, func(o Info) bool { return o.Decree == i.Decree })
		})
		before, after := usableOf(infos), usableOf(left)
		if !slices.Equal(after[max(0, len(after)-r.KeepLast):], before[max(0, len(before)-r.KeepLast):]) {
			t.Fatalf("the last %d of %v must stay, left are %v", r.KeepLast, before, after)
		}
		for _, o := range obsolete {
			if o.Err == nil && now.Sub(o.Manifest.Created) < r.KeepFor && slices.Contains(before, o.Decree) {
				t.Fatalf("decree %d is too young to go", o.Decree)
			}
			if o.Err != nil && !o.damaged() {
				t.Fatalf("decree %d may be good and goes", o.Decree)
			}
		}
	})
}

func usableOf(infos []Info) (decrees []uint64) {
	byDecree := make(map[uint64]*Manifest)
	for _, i := range infos {
		if i.Err == nil {
			byDecree[i.Decree] = i.Manifest
		}
	}
	for _, i := range infos {
		if ancestry(byDecree, i.Decree) != nil {
			decrees = append(decrees, i.Decree)
		}
	}
	return decrees
}

func TestRemove(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	store := NewStore(vfs.NewMem(), "ckpt")
	var made []uint64
	for i := range 3 {
		src.fill(t, 20, 100)
		m, err := store.Create(ctx, nil, src, CreateOptions{Incremental: i == 1, MaxAge: time.Hour})
		must(t, err)
		made = append(made, m.Decree)
	}
	if err := store.Remove(ctx, nil, 1, made[0]); !errors.Is(err, ErrNeeded) {
		t.Fatalf("parent: %v", err)
	}
	if err := store.Remove(ctx, nil, 1, 12345); !errors.Is(err, ErrNotFound) {
		t.Fatalf("missing: %v", err)
	}
	must(t, store.Remove(ctx, nil, 1, made[1]))
	must(t, store.Remove(ctx, nil, 1, made[0]))
	if err := store.Remove(ctx, nil, 1, made[2]); !errors.Is(err, ErrLastGood) {
		t.Fatalf("last: %v", err)
	}
	infos, err := store.List(ctx, 1)
	must(t, err)
	if len(infos) != 1 || infos[0].Decree != made[2] {
		t.Fatalf("left: %+v", infos)
	}
	if ids, err := store.Partitions(ctx); err != nil || !slices.Equal(ids, []uint32{1}) {
		t.Fatalf("partitions %v, %v", ids, err)
	}
}

// TestNameGoesBeforeFiles: the absence of a checkpoint's name is durable before
// the first of its files goes. The file system of the crash tests never lets an
// unsynced removal survive a crash, so the order itself is checked.
func TestNameGoesBeforeFiles(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	renamed, synced, removed := false, false, 0
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		gone := strings.Contains(op.Path, tempPrefix+"removed-")
		switch {
		case op.Kind == errorfs.OpRename:
			renamed, synced = true, false
		case op.Kind == errorfs.OpFileSync && op.Path == "ckpt/0001":
			synced = renamed
		case gone && (op.Kind == errorfs.OpRemoveAll || op.Kind == errorfs.OpRemove):
			if removed++; !synced {
				t.Errorf("%s is removed before the name's absence is synced", op.Path)
			}
		}
		return nil
	}))
	store := NewStore(fs, "ckpt")
	for range 3 {
		src.fill(t, 20, 100)
		_, err := store.Create(ctx, nil, src, CreateOptions{})
		must(t, err)
	}
	renamed, synced = false, false
	_, err := store.Prune(ctx, nil, 1, Retention{KeepLast: 1}, time.Now())
	must(t, err)
	if removed < 4 {
		t.Fatalf("%d removals seen", removed)
	}
}
