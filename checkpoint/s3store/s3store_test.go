package s3store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.uber.org/goleak"

	"replicanode/checkpoint"
	"replicanode/internal/fixture"
)

func TestMain(m *testing.M) {
	// ants starts goroutines of its own when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is an S3-compatible server whose requests can be interfered with.
type server struct {
	*httptest.Server
	// meddle answers a request itself and returns true, or leaves it to the store.
	meddle atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	s3     http.Handler
}

func newServer(t *testing.T) *server {
	t.Helper()
	handler, _ := fixture.ObjectStore(t)
	s := &server{s3: handler}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meddle := s.meddle.Load(); meddle != nil && (*meddle)(w, r) {
			return
		}
		s.s3.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) set(meddle func(w http.ResponseWriter, r *http.Request) bool) {
	s.meddle.Store(&meddle)
}

// open returns a store on the server.
func (s *server) open(t *testing.T, more string) (*checkpoint.Store, *Backend) {
	t.Helper()
	l, err := Parse("s3://backups/node1/ckpt?region=us-east-1&endpoint=" + s.URL + more)
	must(t, err)
	b, err := Open(l)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return checkpoint.NewStoreAt(b), b
}

// source is a partition with random, and so incompressible, values.
type source struct {
	id      uint32
	db      *badger.DB
	applied uint64
}

func newSource(t *testing.T, id uint32, keys, valueBytes int) *source {
	t.Helper()
	db, err := badger.OpenManaged(badger.DefaultOptions("").WithInMemory(true).WithLogger(nil).WithMetricsEnabled(false).
		WithMemTableSize(64 << 20).WithCompression(options.None).WithBlockCacheSize(0))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	s := &source{id: id, db: db}
	for range keys {
		s.applied++
		value := make([]byte, valueBytes)
		_, _ = rand.Read(value)
		s.write(t, fmt.Sprintf("key-%06d", s.applied), value)
	}
	return s
}

func (s *source) write(t *testing.T, key string, value []byte) {
	t.Helper()
	wb := s.db.NewWriteBatchAt(s.applied)
	must(t, wb.SetEntryAt(badger.NewEntry([]byte(key), value), s.applied))
	must(t, wb.Flush())
}

func (s *source) ID() uint32                          { return s.id }
func (s *source) PinApplied() (uint64, func(), error) { return s.applied, func() {}, nil }
func (s *source) Term(uint64) (uint64, error)         { return 1, nil }
func (s *source) Mark(uint64) (string, error)         { return "", nil }
func (s *source) DB() *badger.DB                      { return s.db }

// check holds what a checkpoint holds against the source.
func (s *source) check(t *testing.T, store *checkpoint.Store, decree uint64) {
	t.Helper()
	r, err := store.Open(ctx, nil, s.id, decree)
	must(t, err)
	defer r.Close()
	txn := s.db.NewTransactionAt(decree, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.DefaultIteratorOptions)
	defer it.Close()
	it.Rewind()
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		v, err := it.Item().ValueCopy(nil)
		must(t, err)
		if !bytes.Equal(it.Item().Key(), e.Key) || !bytes.Equal(v, e.Value) || it.Item().Version() != e.Version {
			t.Fatalf("key %q differs", e.Key)
		}
		it.Next()
	}
	if it.Valid() {
		t.Fatalf("key %q is missing", it.Item().Key())
	}
}

var big = checkpoint.CreateOptions{ChunkBytes: 12 << 20, ClusterID: 7, Partitions: 2}

// TestWholeCycle makes, lists, verifies, restores and prunes checkpoints whose chunks are uploaded in parts.
func TestWholeCycle(t *testing.T) {
	store, b := newServer(t).open(t, "&part=5242880")
	sources := []*source{newSource(t, 0, 18, 1_000_000), newSource(t, 1, 5, 100)}
	node := &checkpoint.NodeManifest{Partitions: 2, Created: time.Now(), Finished: time.Now()}
	for _, src := range sources {
		m, err := store.Create(ctx, nil, src, big)
		must(t, err)
		src.check(t, store, m.Decree)
		v, err := store.Verify(ctx, nil, src.id, m.Decree)
		must(t, err)
		must(t, v.Err())
		node.Parts = append(node.Parts, checkpoint.Part{Partition: src.id, Decree: m.Decree, ManifestCRC: m.CRC, Entries: m.Entries, Bytes: m.Bytes})
	}
	must(t, store.PutNode(ctx, node))
	if got, err := store.Node(ctx, ""); err != nil || got.Name != node.Name {
		t.Fatalf("node %+v, %v", got, err)
	}
	if infos, err := store.List(ctx, 0); err != nil || len(infos) != 1 || len(infos[0].Manifest.Chunks) < 2 {
		t.Fatalf("listed %+v, %v", infos, err)
	}
	dir := filepath.Join(t.TempDir(), "0000")
	state, err := store.Restore(ctx, nil, 0, sources[0].applied, dir, checkpoint.RestoreOptions{})
	must(t, err)
	if state.Entries != 18 || state.Decree != 18 {
		t.Fatalf("restored %+v", state)
	}

	sources[1].applied++
	sources[1].write(t, "new", []byte("value"))
	incremental := big
	incremental.Incremental, incremental.MaxAge = true, time.Hour
	m, err := store.Create(ctx, nil, sources[1], incremental)
	must(t, err)
	if m.Full() || m.Entries != 1 {
		t.Fatalf("manifest %+v", m)
	}
	sources[1].check(t, store, m.Decree)
	sources[1].applied++
	sources[1].write(t, "new", []byte("other"))
	_, err = store.Create(ctx, nil, sources[1], big)
	must(t, err)
	removed, err := store.Prune(ctx, nil, 1, checkpoint.Retention{KeepLast: 1}, time.Now())
	if err != nil || len(removed) != 1 || removed[0] != m.Decree {
		t.Fatalf("removed %v, %v; the node needs the oldest", removed, err)
	}
	if ids, err := store.Partitions(ctx); err != nil || len(ids) != 2 {
		t.Fatalf("partitions %v, %v", ids, err)
	}
	// A damaged one in the place of the next one goes.
	place := fmt.Sprintf("0000/%020d/", sources[0].applied)
	must(t, b.Delete(ctx, place+"000002.chunk"))
	if v, err := store.Verify(ctx, nil, 0, sources[0].applied); err != nil || !strings.Contains(v.Err().Error(), "000002.chunk") {
		t.Fatalf("missing chunk: %v", err)
	}
	if _, err := store.Open(ctx, nil, 0, sources[0].applied); err == nil {
		t.Fatal("opened without a chunk")
	}
	_, err = store.Create(ctx, nil, sources[0], big)
	must(t, err)
	sources[0].check(t, store, sources[0].applied)
}

// TestTroubleOnTheWay: requests fail, connections break, bytes flip in flight; the checkpoint is good all the same.
func TestTroubleOnTheWay(t *testing.T) {
	s := newServer(t)
	store, _ := s.open(t, "&part=5242880")
	src := newSource(t, 3, 14, 1_000_000)
	var n, flipped, cut, refused atomic.Int64
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		switch k := n.Add(1); {
		case k%5 == 0:
			refused.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case r.Method == http.MethodPut && k%7 == 0:
			body, err := io.ReadAll(r.Body)
			if err != nil || len(body) == 0 {
				return false
			}
			flipped.Add(1)
			body[len(body)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(body))
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".chunk") && cut.Load() < 3:
			cut.Add(1)
			rec := httptest.NewRecorder()
			s.s3.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
			panic(http.ErrAbortHandler)
		}
		return false
	})
	// A flipped bit is refused by the server, which is no reason to try the same request again; the caller's next attempt is a new one.
	var m *checkpoint.Manifest
	for attempt := 0; ; attempt++ {
		var err error
		if m, err = store.Create(ctx, nil, src, big); err == nil {
			break
		}
		if infos, lerr := store.List(ctx, 3); lerr == nil && len(infos) != 0 {
			t.Fatalf("listed after %v: %+v", err, infos)
		}
		if attempt == 10 {
			t.Fatal(err)
		}
	}
	src.check(t, store, m.Decree)
	if flipped.Load() == 0 || cut.Load() == 0 || refused.Load() == 0 {
		t.Fatalf("flipped %d, cut %d, refused %d", flipped.Load(), cut.Load(), refused.Load())
	}
	s.meddle.Store(nil)
	v, err := store.Verify(ctx, nil, 3, m.Decree)
	must(t, err)
	must(t, v.Err())
}

// TestInterrupted: an upload that ends in the middle, at any request, leaves nothing that lists, and the next run cleans up.
func TestInterrupted(t *testing.T) {
	s := newServer(t)
	store, b := s.open(t, "&part=5242880&retries=1")
	src := newSource(t, 0, 13, 1_000_000)
	for at := int64(1); ; at++ {
		var n atomic.Int64
		s.set(func(w http.ResponseWriter, r *http.Request) bool {
			if n.Add(1) < at {
				return false
			}
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusForbidden) // not tried again
			return true
		})
		_, err := store.Create(ctx, nil, src, big)
		s.meddle.Store(nil)
		infos, lerr := store.List(ctx, 0)
		must(t, lerr)
		if err == nil {
			if len(infos) != 1 {
				t.Fatalf("listed %+v", infos)
			}
			break
		}
		if len(infos) != 0 {
			t.Fatalf("half a checkpoint is listed after request %d: %+v", at, infos)
		}
		if _, err := store.Latest(ctx, 0); !errors.Is(err, checkpoint.ErrNotFound) {
			t.Fatal(err)
		}
	}
	src.check(t, store, src.applied)
	// The same for the removal.
	src.applied++
	src.write(t, "one more", nil)
	_, err := store.Create(ctx, nil, src, big)
	must(t, err)
	for at := int64(1); ; at++ {
		var n atomic.Int64
		s.set(func(w http.ResponseWriter, r *http.Request) bool {
			if n.Add(1) < at {
				return false
			}
			w.WriteHeader(http.StatusForbidden)
			return true
		})
		_, err := store.Prune(ctx, nil, 0, checkpoint.Retention{KeepLast: 1}, time.Now())
		s.meddle.Store(nil)
		infos, lerr := store.List(ctx, 0)
		must(t, lerr)
		for _, info := range infos {
			must(t, info.Err)
		}
		if err == nil {
			break
		}
	}
	must(t, store.Clean(ctx, nil, 0))
	left, err := b.list(ctx, "0000", true)
	must(t, err)
	infos, err := store.List(ctx, 0)
	must(t, err)
	if len(infos) != 1 || len(left) != len(infos[0].Manifest.Chunks)+1 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestRateIsBounded(t *testing.T) {
	store, _ := newServer(t).open(t, "&rate=4000000")
	src := newSource(t, 0, 2, 1_000_000)
	begun := time.Now()
	_, err := store.Create(ctx, nil, src, big)
	must(t, err)
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Fatalf("2 MiB at 4 MB/s took %v", took)
	}
}

// TestSecretsStaySecret: neither errors nor paths nor the log of a service say them.
func TestSecretsStaySecret(t *testing.T) {
	s := newServer(t)
	var said bytes.Buffer
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.Header.Get("Authorization"), fixture.AccessKey) {
			t.Errorf("not signed: %v", r.Header)
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	store, b := s.open(t, "&retries=1")
	log := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	_, err := store.Create(ctx, nil, newSource(t, 0, 1, 1), big)
	log.Error("create", "error", err, "store", store.Root(), "location", b.l)
	_, err = store.List(ctx, 0)
	log.Error("list", "error", err)
	for _, location := range []string{
		"s3://" + fixture.AccessKey + ":" + fixture.SecretKey + "@backups/x", "s3://backups/x?secret_key=" + fixture.SecretKey, "s3://backups/x?endpoint=http://" + fixture.AccessKey + ":" + fixture.SecretKey + "@host",
		"s3://backups/x?rate=" + fixture.SecretKey, "s3://backups/%zz" + fixture.SecretKey, "s3://backups/?" + fixture.SecretKey + "%zz=1",
	} {
		_, err := Parse(location)
		if err == nil {
			t.Errorf("%s was accepted", location)
		}
		log.Error("parse", "error", err)
	}
	if text := said.String(); strings.Contains(text, fixture.SecretKey) || strings.Contains(text, fixture.AccessKey) || !strings.Contains(text, "backups") {
		t.Fatalf("the log says\n%s", text)
	}
}

func TestCredentialsFromFile(t *testing.T) {
	s := newServer(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "")
	}
	file := filepath.Join(t.TempDir(), "credentials")
	must(t, os.WriteFile(file, []byte("[default]\naws_access_key_id = FROMFILE\naws_secret_access_key = x\n"), 0o600))
	seen := make(chan bool, 100)
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		seen <- strings.Contains(r.Header.Get("Authorization"), "Credential=FROMFILE/")
		return false
	})
	store, _ := s.open(t, "&credentials="+file)
	_, err := store.Partitions(ctx)
	must(t, err)
	if !<-seen {
		t.Fatal("the file's credentials were not used")
	}
}

func TestParse(t *testing.T) {
	l, err := Parse("s3://backups/a/b/?endpoint=http://127.0.0.1:9000&region=eu&part=6291456&rate=1000&retries=3")
	want := Location{Bucket: "backups", Prefix: "a/b", Host: "127.0.0.1:9000", Region: "eu", PartBytes: 6291456, BytesPerSecond: 1000, Retries: 3}
	if err != nil || l != want {
		t.Fatalf("%+v, %v", l, err)
	}
	if l, err := Parse("s3://bkt"); err != nil || !l.Secure || l.Prefix != "" {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, good := range []string{"http://minio", "https://[::1]:9000", "http://10.0.0.1:65535", "https://s3.eu-central-1.example.org/"} {
		if _, err := Parse("s3://bkt?endpoint=" + good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "s3://", "s3:///x", "http://x", "s3://b", "s3://.bkt", "s3://bkt?part=1", "s3://bkt?rate=-1", "s3://bkt?retries=0", "s3://bkt?nonsense=1",
		"s3://bkt?endpoint=ftp://x", "s3://bkt?endpoint=http://h/path", "s3://bkt?endpoint=nourl", "s3://bkt?endpoint=h:9000", "s3://bkt?endpoint=", "s3://bkt?endpoint=http://",
		"s3://bkt?endpoint=http://h:", "s3://bkt?endpoint=http://h:70000", "s3://bkt?endpoint=http://a..b", "s3://bkt?endpoint=http://-a", "s3://bkt?endpoint=http://h%23x"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("s3://b/p?endpoint=http://h:1&part=" + fmt.Sprint(math.MaxInt64))
	f.Add(string(binary.LittleEndian.AppendUint64(nil, 42)))
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := Parse(s); err == nil && (l.Bucket == "" || l.PartBytes < minPartBytes) {
			t.Fatalf("%q gave %+v", s, l)
		}
	})
}

// TestCancelledUpload: the server forgets the parts of an upload that is given up, and if it does not answer then, nobody waits for it
// and the next run tells it.
func TestCancelledUpload(t *testing.T) {
	s := newServer(t)
	store, b := s.open(t, "&part=5242880&retries=1")
	src := newSource(t, 0, 11, 1_000_000)
	uploads := func() (n int) {
		for upload := range b.client.ListIncompleteUploads(ctx, "backups", "node1/ckpt", true) {
			if upload.Err == nil { // the server has no list when there is none
				n++
			}
		}
		return n
	}
	for _, deaf := range []bool{false, true} {
		within, cancel := context.WithCancel(ctx)
		s.set(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Query().Get("partNumber") == "2":
				cancel()
			case r.Method != http.MethodDelete || !deaf || r.URL.Query().Get("uploadId") == "":
				return false
			}
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return true
		})
		begun := time.Now()
		if _, err := store.Create(within, nil, src, big); !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
		if took := time.Since(begun); took > farewell+20*time.Second {
			t.Errorf("gave up after %v", took)
		}
		s.meddle.Store(nil)
		if n := uploads(); n > 0 != deaf {
			t.Errorf("%d uploads are left, server deaf: %v", n, deaf)
		}
		infos, err := store.List(ctx, 0)
		must(t, err)
		if len(infos) != 0 {
			t.Errorf("listed: %+v", infos)
		}
	}
	must(t, store.Clean(ctx, nil, 0))
	if n := uploads(); n > 0 {
		t.Errorf("%d uploads after cleaning", n)
	}
}
