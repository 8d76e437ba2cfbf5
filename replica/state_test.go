package replica

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

func TestSlotIsThatOfRedisCluster(t *testing.T) {
	for key, want := range map[string]uint16{
		"123456789": 0x31c3, "foo": 12182, "": 0, "{user1000}.following": Slot([]byte("user1000")),
		"foo{}{bar}": Slot([]byte("foo{}{bar}")), "foo{{bar}}zap": Slot([]byte("{bar")), "foo{bar}{zap}": Slot([]byte("bar")),
	} {
		if got := Slot([]byte(key)); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
	if Slot([]byte("foo{}{bar}")) == Slot([]byte("bar")) {
		t.Error("an empty tag was skipped")
	}
	for n := uint32(1); n <= MaxPartitions; n *= 2 {
		if p := PartitionOf([]byte("foo"), n); p != 12182*n/Slots {
			t.Errorf("of %d partitions: %d", n, p)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := testOptions(t, testDir(t))
	good.Syncer = plog.NewSyncer(plog.SyncerOptions{})
	for name, change := range map[string]func(o *Options){
		"no dir":             func(o *Options) { o.Dir = "" },
		"no cluster":         func(o *Options) { o.ClusterID = 0 },
		"no syncer":          func(o *Options) { o.Syncer = nil },
		"too many":           func(o *Options) { o.Partitions = MaxPartitions + 1 },
		"not a voter":        func(o *Options) { o.Voters = []uint64{2} },
		"no transport":       func(o *Options) { o.Voters = []uint64{1, 2, 3} },
		"key limit":          func(o *Options) { o.MaxKeyBytes = 61 << 10 },
		"value limit":        func(o *Options) { o.MaxValueBytes = -1 },
		"field limit":        func(o *Options) { o.MaxFieldValueBytes = 1 << 20 },
		"memtable":           func(o *Options) { o.MemTableBytes = 1 << 20 },
		"election":           func(o *Options) { o.ElectionTicks = 1 },
		"negative in flight": func(o *Options) { o.InFlight = -1 },
		"command limit":      func(o *Options) { o.MaxMutationBytes = 8 << 20 },
		"log's limit":        func(o *Options) { o.InFlight = 7 },
	} {
		o := good
		change(&o)
		if _, err := NewHost(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewHost(good); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	longKey, longest := make([]byte, maxKeyBytes+1), make([]byte, maxKeyBytes)
	var tooLarge *TooLargeError
	err := try(n.Partition(0), func(tx *Tx) {
		must(t, tx.Put([]byte("with the refused ones"), nil, 0))
		for name, err := range map[string]error{
			"key":   tx.Put(longKey, nil, 0),
			"value": tx.Put([]byte("k"), make([]byte, 8<<20+1), 0),
		} {
			if !errors.As(err, &tooLarge) || tooLarge.What != name || tooLarge.Bytes != tooLarge.Limit+1 {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := tx.HashPut(longest, []byte("f"), nil); !errors.As(err, &tooLarge) {
			t.Errorf("field: %v", err)
		}
		if _, err := tx.HashPut([]byte("h"), nil, make([]byte, maxFieldValueBytes+1)); !errors.As(err, &tooLarge) {
			t.Errorf("field value: %v", err)
		}
	})
	if !errors.As(err, &tooLarge) {
		t.Errorf("a command with refused writes: %v", err)
	}
	if _, ok := get(t, n.Partition(0), "with the refused ones"); ok {
		t.Error("a part of a refused command took effect")
	}
	do(t, n.Partition(0), func(tx *Tx) {
		must(t, tx.Put(longest, make([]byte, 8<<20), 0))
		_, err := tx.HashPut(longest[1:], []byte("f"), make([]byte, maxFieldValueBytes))
		must(t, err)
	})
	if v, ok := get(t, n.Partition(0), string(longest)); !ok || len(v) != 8<<20 {
		t.Errorf("%v, %d bytes", ok, len(v))
	}
	if n.Partition(0).Applied() > 4 {
		t.Error("refused writes used decrees")
	}
}

// TestPinnedDecreeStaysReadable through overwriting, flushes and compactions; and what is not pinned goes away.
func TestPinnedDecreeStaysReadable(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	write := func(round int) {
		setAll(t, p, 64, fmt.Sprint(round)+strings.Repeat("x", 32<<10))
	}
	write(0)
	pinned, release, err := p.PinApplied()
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 15; round++ {
		write(round)
	}
	if p.Durable() <= pinned {
		t.Fatalf("durable %d is not beyond the pinned decree %d: the test does not reach what it tests", p.Durable(), pinned)
	}
	txn, err := p.ReadAt(pinned)
	if err != nil {
		t.Fatal(err)
	}
	v := View{txn: txn, nowMs: p.nowMs()}
	for i := range 64 {
		got, ok, err := v.Get([]byte(key(i)))
		if err != nil || !ok || !bytes.HasPrefix(got.Data, []byte("0x")) {
			t.Fatalf("%s at the pinned decree: %v %v", key(i), ok, err)
		}
	}
	txn.Discard()
	if p.durable.discard > pinned {
		t.Errorf("versions up to %d may be dropped, pinned is %d", p.durable.discard, pinned)
	}
	release()
	release()
	write(16)
	p.refreshDurable()
	p.durable.mu.Lock()
	discard := p.durable.discard
	p.durable.mu.Unlock()
	if discard <= pinned {
		t.Errorf("still nothing after %d may be dropped", discard)
	}
	if _, err := p.Pin(pinned); !errors.Is(err, ErrReleased) {
		t.Errorf("a decree that may be gone was pinned: %v", err)
	}
	if _, err := p.Pin(p.Applied() + 1); !errors.Is(err, ErrReleased) {
		t.Errorf("the future was pinned: %v", err)
	}
	again, err := p.Pin(p.Applied())
	must(t, err)
	again()
}

// TestReleaseLogKeepsWhatRecoveryNeeds: after any release, a restart finds everything.
func TestReleaseLogKeepsWhatRecoveryNeeds(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.Log.SegmentBytes = 1 << 20
	n := startNode(t, o)
	for round := range 3 {
		p := n.Partition(0)
		for range 5 {
			setAll(t, p, 64, fmt.Sprint(round)+strings.Repeat("x", 32<<10))
		}
		must(t, p.ReleaseLog(p.Applied()))
		if first, durable := p.Log().FirstIndex(), p.Durable(); first > durable && durable > 0 {
			t.Fatalf("log begins at %d, durable is %d", first, durable)
		}
		n.stop(t)
		n = startNode(t, o)
		for i := range 64 {
			if v, ok := get(t, n.Partition(0), key(i)); !ok || !strings.HasPrefix(v, fmt.Sprint(round)) {
				t.Fatalf("round %d: %s is %.5q", round, key(i), v)
			}
		}
	}
	if n.Partition(0).Log().FirstIndex() == 1 {
		t.Error("nothing was ever released")
	}
	n.stop(t)
}

func TestReplayIsVisible(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	if s := n.Partition(0).Status(); !s.Replay.Done || !s.Serving || s.Phase != "open" || !s.IsLeader {
		t.Errorf("%+v", s)
	}
	for i := range 10 {
		set(t, n.Partition(0), key(i), "v")
	}
	n.stop(t)
	n = startNode(t, o)
	s := n.Partition(0).Status()
	if !s.Replay.Done || s.Replay.To < 10 || s.Replay.At != s.Replay.To || s.Replay.From > s.Replay.To || s.Applied <= s.Replay.To {
		t.Errorf("%+v", s)
	}
}

// TestSweepRemovesGarbageOnly and all of it.
func TestSweepRemovesGarbageOnly(t *testing.T) {
	clock := newFakeClock()
	o := testOptions(t, testDir(t))
	o.Clock = clock.now
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	hash := func(key string, fields int) {
		do(t, p, func(tx *Tx) {
			for i := range fields {
				_, err := tx.HashPut([]byte(key), fmt.Append(nil, i), []byte("v"))
				must(t, err)
			}
		})
	}
	for _, k := range []string{"kept", "overwritten", "deleted", "expired", "shrunk"} {
		hash(k, 3000)
	}
	long := strings.Repeat("x", 3*chunkBytes)
	set(t, p, "long", long)
	set(t, p, "long", long)
	set(t, p, "overwritten", "now a string")
	do(t, p, func(tx *Tx) {
		_, err := tx.Delete([]byte("deleted"))
		must(t, err)
		_, err = tx.Expire([]byte("expired"), tx.NowMs()+1000)
		must(t, err)
		for i := range 2999 {
			_, err = tx.HashDelete([]byte("shrunk"), fmt.Append(nil, i))
			must(t, err)
		}
	})
	clock.advance(25 * time.Hour)
	set(t, p, "later", "than what is forgotten")
	before := visible(t, p)
	slices := 0
	must(t, p.Sweep(t.Context(), func(int) error { slices++; return nil }))
	if after := visible(t, p); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("a sweep changed what is visible")
	}
	if slices < 3 {
		t.Errorf("swept in %d slices", slices)
	}
	children := map[string]int{}
	for k := range dump(t, p) {
		if key, _, _, _, ok := splitChildKey([]byte(k)); ok {
			children[string(key)]++
		}
	}
	if children["kept"] != 3000 || children["long"] != 3 || children["shrunk"] != 1 {
		t.Errorf("%v", children)
	}
	for _, k := range []string{"overwritten", "deleted", "expired"} {
		if children[k] != 0 {
			t.Errorf("%d fields of %s are left", children[k], k)
		}
	}
	stop := errors.New("enough")
	if err := p.Sweep(t.Context(), func(int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// TestRecordsCarryAnExpiry, later than their own, that badger never acts on.
func TestRecordsCarryAnExpiry(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	expireAt := uint64(time.Now().Add(time.Hour).UnixMilli())
	do(t, p, func(tx *Tx) {
		must(t, tx.Put([]byte("expires"), []byte("v"), expireAt))
		must(t, tx.Put([]byte("stays"), []byte("v"), 0))
		must(t, tx.Put([]byte("deleted"), []byte("v"), 0))
		_, err := tx.Delete([]byte("deleted"))
		must(t, err)
	})
	day := uint64(24 * 60 * 60)
	must(t, p.viewApplied(func(v *View) error {
		for k, want := range map[string]uint64{
			"expires": keepExpired + expireAt/1000 + day, "stays": 0, "deleted": keepExpired + uint64(time.Now().Unix()) + day,
		} {
			item, err := v.txn.Get(appendMetaKey(nil, []byte(k)))
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			if got := item.ExpiresAt(); got+2 < want || got > want+2 {
				t.Errorf("%s expires at %d, want about %d", k, got, want)
			}
		}
		return nil
	}))
}

// TestSubscriberGetsWhatTheLogHolds, without gaps; and a late one reads the beginning from the log.
func TestSubscriberGetsWhatTheLogHolds(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	set(t, p, "early", "v")
	sub := &recorder{}
	cancel := p.Subscribe(sub)
	from := p.Applied()
	for i := range 50 {
		set(t, p, key(i), "v")
	}
	cancel()
	set(t, p, "late", "v")
	r, err := p.Log().NewReader(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	keys := 0
	for {
		e, err := r.Next()
		if err != nil {
			break
		}
		if e.Type == 0 && len(e.Data) > 0 {
			_, d, err := mutation.Decode(e.Data)
			must(t, err)
			for op := (mutation.Op{}); d.Next(&op); keys++ {
			}
		}
		got, ok := sub.entries[e.Index]
		if want := e.Index > from && e.Index <= from+50; ok != want {
			t.Errorf("decree %d: seen %v, want %v", e.Index, ok, want)
		}
		if ok && !bytes.Equal(got, e.Data) {
			t.Errorf("decree %d differs from the log", e.Index)
		}
	}
	if keys != 52 {
		t.Errorf("the log holds %d puts", keys)
	}
}

type recorder struct {
	mu      sync.Mutex
	entries map[uint64][]byte
}

func (r *recorder) Applied(entries []plog.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries == nil {
		r.entries = map[uint64][]byte{}
	}
	for _, e := range entries {
		r.entries[e.Index] = bytes.Clone(e.Data)
	}
}

// TestHotKeyCostsOneRecord: many writes of one key in one mutation are one database record.
func TestHotKeyCostsOneRecord(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	entered, leave := make(chan struct{}), make(chan struct{})
	blocker := newCall(func(*Tx) { close(entered); <-leave })
	must(t, p.Propose(blocker))
	<-entered
	var calls []*call
	for range 500 {
		c := newCall(func(tx *Tx) {
			v, _, err := tx.Get([]byte("n"))
			must(t, err)
			must(t, tx.Put([]byte("n"), append(bytes.Clone(v.Data), 'x'), 0))
		})
		must(t, p.Propose(c))
		calls = append(calls, c)
	}
	applied := p.Applied()
	close(leave)
	for _, c := range calls {
		must(t, <-c.done)
	}
	if v, _ := get(t, p, "n"); len(v) != 500 {
		t.Errorf("%d of 500 appends", len(v))
	}
	if used := p.Applied() - applied; used > 2 {
		t.Errorf("%d decrees for 500 commands", used)
	}
}

// FuzzRecords: no bytes in the database make a reader panic.
func FuzzRecords(f *testing.F) {
	hash := meta{kind: recHash, count: 3, writer: 9, gen: newGeneration(5, 6)}
	chunked := meta{kind: recChunked, length: 1 << 20}
	f.Add([]byte(nil))
	f.Add(hash.appendHead(nil))
	f.Add(chunked.appendHead(nil))
	f.Add(append((&meta{kind: recString, expireAt: 7}).appendHead(nil), "data"...))
	f.Add((&meta{kind: recTombstone}).appendHead(nil))
	f.Add(appendFieldKey(nil, []byte("key"), generation{}, []byte("field")))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMeta(data)
		if err != nil && !errors.Is(err, errState) {
			t.Fatal(err)
		}
		if err == nil && len(data) > 0 && !bytes.Equal(append(m.appendHead(nil), m.data...), data) {
			t.Fatalf("%x decodes to %+v", data, m)
		}
		if _, err := parseField(data); err != nil && !errors.Is(err, errState) {
			t.Fatal(err)
		}
		if key, _, prefix, rest, ok := splitChildKey(data); ok {
			if !bytes.Equal(append(bytes.Clone(prefix), rest...), data) || len(key) > len(prefix) {
				t.Fatal("child key split wrong")
			}
		}
		_, _ = parseAppliedRecord(data)
	})
}
