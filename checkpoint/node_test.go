package checkpoint

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// nodeOf composes a node's manifest of the newest checkpoints in the store.
func nodeOf(t *testing.T, s *Store, partitions uint32, at time.Time) *NodeManifest {
	t.Helper()
	m := &NodeManifest{Partitions: partitions, Created: at, Finished: at}
	for id := range partitions {
		newest, err := s.Latest(ctx, id)
		must(t, err)
		m.Parts = append(m.Parts, Part{id, newest.Decree, newest.CRC, newest.Entries, newest.Bytes})
	}
	return m
}

// twoPartitions are sources with something in them.
func twoPartitions(t *testing.T) []*source {
	t.Helper()
	var sources []*source
	for id := range uint32(2) {
		src := newSource(t, id)
		t.Cleanup(func() { src.db.Close() })
		src.fill(t, 30, 100)
		sources = append(sources, src)
	}
	return sources
}

func createAll(t *testing.T, s *Store, sources []*source) {
	t.Helper()
	for _, src := range sources {
		_, err := s.Create(ctx, nil, src, CreateOptions{})
		must(t, err)
	}
}

// TestNodeManifestAppearsWholeOrNotAtAll crashes before each operation of making and removing node manifests.
func TestNodeManifestAppearsWholeOrNotAtAll(t *testing.T) {
	sources := twoPartitions(t)
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(3, 4))
	type crash struct {
		fs      *vfs.MemFS
		atLeast int
	}
	var crashes []crash
	watching, promised := false, 0
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if watching && op.Kind.ReadOrWrite() != errorfs.OpIsRead {
			for _, percent := range []int{0, 50, 100} {
				crashes = append(crashes, crash{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), promised})
			}
		}
		return nil
	}))
	store := NewStore(fs, "data/ckpt")
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 3 {
		createAll(t, store, sources)
		watching = true
		must(t, store.PutNode(ctx, nodeOf(t, store, 2, start.Add(time.Duration(i)*time.Second))))
		promised++
		watching = false
		for _, src := range sources {
			src.fill(t, 5, 100)
		}
	}
	watching, promised = true, 1
	removed, err := store.PruneNodes(ctx, Retention{KeepLast: 1}, start.Add(time.Minute))
	must(t, err)
	if len(removed) != 2 || len(crashes) < 20 {
		t.Fatalf("removed %v, %d crashes", removed, len(crashes))
	}
	for _, c := range crashes {
		after := NewStore(c.fs, "data/ckpt")
		nodes, err := after.Nodes(ctx)
		must(t, err)
		if len(nodes) < c.atLeast {
			t.Fatalf("%d node checkpoints, %d were promised", len(nodes), c.atLeast)
		}
		for _, n := range nodes {
			must(t, n.Err)
		}
		must(t, after.CleanNodes(ctx))
		createAll(t, after, sources)
		must(t, after.PutNode(ctx, nodeOf(t, after, 2, start.Add(time.Hour))))
		if _, err := after.Node(ctx, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryBitOfANodeManifest flips each of them, and cuts the file at each length.
func TestEveryBitOfANodeManifest(t *testing.T) {
	sources := twoPartitions(t)
	mem := vfs.NewMem()
	store := NewStore(mem, "ckpt")
	createAll(t, store, sources)
	m := nodeOf(t, store, 2, time.Now())
	must(t, store.PutNode(ctx, m))
	path := store.b.Path(nodePath(m.Name))
	whole := readFile(t, mem, path)
	check := func(what string, at int, b []byte) {
		if _, err := parseNodeManifest(path, b); err == nil {
			t.Fatalf("%s %d was not noticed", what, at)
		}
	}
	for i := range whole {
		check("cut at", i, whole[:i])
		for bit := range 8 {
			b := slices.Clone(whole)
			b[i] ^= 1 << bit
			check("flip in byte", i, b)
		}
	}
	b := slices.Clone(whole)
	b[len(b)/2] ^= 1
	writeFile(t, mem, path, b)
	nodes, err := store.Nodes(ctx)
	must(t, err)
	var corrupt *CorruptError
	if len(nodes) != 1 || !errors.As(nodes[0].Err, &corrupt) || nodes[0].Problem == "" {
		t.Fatalf("listed as %+v", nodes)
	}
	if _, err := store.Node(ctx, m.Name); !errors.As(err, &corrupt) {
		t.Fatalf("found although damaged: %v", err)
	}
}

// TestNodeCheckpointKeepsItsParts: what a node's checkpoint names is neither pruned nor removed while it stays, and without
// one of its parts it counts as incomplete.
func TestNodeCheckpointKeepsItsParts(t *testing.T) {
	sources := twoPartitions(t)
	mem := vfs.NewMem()
	store := NewStore(mem, "ckpt")
	createAll(t, store, sources)
	start := time.Now().Add(-time.Hour)
	first := nodeOf(t, store, 2, start)
	must(t, store.PutNode(ctx, first))
	kept := first.Parts[1].Decree
	for range 3 {
		sources[1].fill(t, 20, 100)
		createAll(t, store, sources)
	}
	removed, err := store.Prune(ctx, nil, 1, Retention{KeepLast: 1}, time.Now())
	must(t, err)
	if len(removed) != 2 || slices.Contains(removed, kept) {
		t.Fatalf("removed %v, the node needs %d", removed, kept)
	}
	if err := store.Remove(ctx, nil, 1, kept); !errors.Is(err, ErrNeeded) {
		t.Fatalf("remove a part: %v", err)
	}
	must(t, store.PutNode(ctx, nodeOf(t, store, 2, start.Add(time.Minute))))
	if names, err := store.PruneNodes(ctx, Retention{KeepLast: 1, KeepFor: 2 * time.Hour}, time.Now()); err != nil || len(names) != 0 {
		t.Fatalf("young ones removed: %v, %v", names, err)
	}
	names, err := store.PruneNodes(ctx, Retention{KeepLast: 1}, time.Now())
	if err != nil || !slices.Equal(names, []string{first.Name}) {
		t.Fatalf("removed %v, %v", names, err)
	}
	removed, err = store.Prune(ctx, nil, 1, Retention{KeepLast: 1}, time.Now())
	if err != nil || !slices.Equal(removed, []uint64{kept}) {
		t.Fatalf("removed %v, %v", removed, err)
	}
	last, err := store.Node(ctx, "")
	must(t, err)
	must(t, mem.RemoveAll(store.dir(1, last.Parts[1].Decree)))
	if _, err := store.Node(ctx, last.Name); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "partition 1") {
		t.Fatalf("without a part: %v", err)
	}
	if names, err := store.PruneNodes(ctx, Retention{KeepLast: 1}, time.Now()); err != nil || len(names) != 0 {
		t.Fatalf("the only one was removed: %v, %v", names, err)
	}
}

// TestPutNodeRefusesWhatIsNotThere: no manifest of a node promises a part that cannot be restored.
func TestPutNodeRefusesWhatIsNotThere(t *testing.T) {
	sources := twoPartitions(t)
	store := NewStore(vfs.NewMem(), "ckpt")
	createAll(t, store, sources)
	for name, change := range map[string]func(m *NodeManifest){
		"part missing":   func(m *NodeManifest) { m.Parts = m.Parts[:1] },
		"part twice":     func(m *NodeManifest) { m.Parts[1] = m.Parts[0] },
		"other decree":   func(m *NodeManifest) { m.Parts[1].Decree++ },
		"other copy":     func(m *NodeManifest) { m.Parts[1].ManifestCRC = "00000000" },
		"no partitions":  func(m *NodeManifest) { m.Partitions, m.Parts = 0, nil },
		"decree unnamed": func(m *NodeManifest) { m.Parts[0].Decree = 0 },
	} {
		m := nodeOf(t, store, 2, time.Now())
		change(m)
		if err := store.PutNode(ctx, m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if nodes, err := store.Nodes(ctx); err != nil || len(nodes) != 0 {
		t.Fatalf("left: %+v, %v", nodes, err)
	}
	m := nodeOf(t, store, 2, time.Now())
	m.Parts[0] = Part{Partition: 0} // nothing applied
	must(t, store.PutNode(ctx, m))
}

// TestNodeRunRetriesAndPins: a failed attempt is made again, only one run goes on at a time, a partition that is not open fails
// by name, and progress is told on the way.
func TestNodeRunRetriesAndPins(t *testing.T) {
	sources := twoPartitions(t)
	created := make(chan uint32, 2)
	failures, held, release := 0, make(chan struct{}), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync && strings.HasPrefix(op.Path, "ckpt/0001/tmp-") { // made without a slot
			if failures++; failures <= 2 {
				return errors.New("try again")
			}
			if failures == 3 {
				close(held)
				<-release
			}
		}
		return nil
	}))
	s, err := NewService(ServiceOptions{Store: NewStore(fs, "ckpt"), Sources: []Source{sources[0], sources[1]}, Runner: newRunner(t, 5),
		Create: CreateOptions{Partitions: 2}, Created: func(m *Manifest) { created <- m.Partition }})
	must(t, err)
	if _, err := s.CreateNode(true); !errors.Is(err, ErrStopped) {
		t.Fatalf("before Start: %v", err)
	}
	must(t, s.Start(ctx))
	defer s.Stop(ctx)
	run, err := s.CreateNode(true)
	must(t, err)
	<-held
	if _, err := s.CreateNode(true); !errors.Is(err, ErrNodeRunning) {
		t.Fatalf("a second run: %v", err)
	}
	if id := <-created; id != 0 {
		t.Fatalf("partition %d came first", id)
	}
	if st := s.NodeStatus().Running; st.Partitions != 2 || st.Failed != 0 || st.Progress < 0.5 || st.Progress >= 1 || st.Bytes == 0 {
		t.Fatalf("progress %+v", st)
	}
	close(release)
	<-run.Done()
	must(t, run.Err())
	got, err := s.Store().Node(ctx, run.Manifest().Name)
	must(t, err)
	if got.Parts[1].Decree != sources[1].applied || s.NodeStatus().Last.Name != got.Name || s.NodeStatus().Running != nil {
		t.Fatalf("manifest %+v, status %+v", got, s.NodeStatus())
	}
}

func TestNodeRunNamesPartitionThatIsNotOpen(t *testing.T) {
	sources := twoPartitions(t)
	s, err := NewService(ServiceOptions{Store: NewStore(vfs.NewMem(), "ckpt"), Sources: []Source{sources[0]}, Runner: newRunner(t, 1),
		Create: CreateOptions{Partitions: 2}})
	must(t, err)
	must(t, s.Start(ctx))
	defer s.Stop(ctx)
	run, err := s.CreateNode(true)
	must(t, err)
	<-run.Done()
	var failed *PartitionError
	if !errors.As(run.Err(), &failed) || failed.Partition != 1 || !errors.Is(run.Err(), ErrUnknownPartition) {
		t.Fatalf("error %v", run.Err())
	}
	if o := run.Outcomes()[0]; o.Err != nil || o.Manifest == nil {
		t.Fatalf("partition 0: %+v", o)
	}
}
