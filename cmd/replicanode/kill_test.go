package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/redis/go-redis/v9"

	"replicanode/checkpoint"
	"replicanode/internal/fixture"
	"replicanode/node"
)

// childArgs is the environment variable with the command line, as JSON, that this test binary runs instead of tests.
const childArgs = "REPLICANODE_TEST_COMMAND"

// child is this binary as the program.
func child(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(append([]string{"replicanode"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	c := exec.Command(self)
	c.Env = append(os.Environ(), childArgs+"="+string(text))
	c.Stdout, c.Stderr = &output, &output
	return c, &output
}

// killing is a data folder, two places for its checkpoints, and a process that is killed while it works on them.
type killing struct {
	t      *testing.T
	rng    *rand.Rand
	dir    string
	places map[string]string // by name, as --checkpoint-store says them
	took   map[string]time.Duration
	// restored counts the folders that restores were to make.
	restored int
}

const (
	killedKeys = 600
	// killedBig keys with values of a MiB make the chunks large enough to be uploaded in parts.
	killedBig = 18
)

// TestKilledWhileCheckpointing kills the program, without warning, while it creates, uploads, prunes and restores, and a node while it
// does all of that beside clients, in chains of incremental checkpoints. Whatever is listed afterwards is whole, no node starts on
// half a restore, the next attempt succeeds, and leaves nothing of the others. REPLICANODE_STRESS=1 kills 200 times.
func TestKilledWhileCheckpointing(t *testing.T) {
	rounds := 12
	if os.Getenv("REPLICANODE_STRESS") == "1" {
		rounds = 200
	}
	handler, mem := fixture.ObjectStore(t)
	server := httptest.NewServer(handler)
	defer server.Close()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := &killing{t: t, rng: rand.New(rand.NewPCG(seed, 1)), dir: filepath.Join(t.TempDir(), "data"), took: map[string]time.Duration{}}
	k.places = map[string]string{"folder": filepath.Join(t.TempDir(), "place"), "s3": "s3://backups/x?region=us-east-1&endpoint=" + server.URL}
	n, stop := runNode(t, k.dir, 3)
	put(t, n, 0, killedKeys)
	putBig(t, n)
	stop()
	steps := []string{"create", "prune", "restore"}
	for place := range k.places {
		for _, step := range steps {
			k.finish(step, place)
		}
	}
	for range rounds {
		place := "folder"
		if k.rng.IntN(2) == 0 {
			place = "s3"
		}
		if step := k.rng.IntN(len(steps) + 1); step < len(steps) {
			k.kill(steps[step], place)
		} else {
			k.killNode(place)
		}
	}
	for place := range k.places {
		for _, step := range steps {
			k.finish(step, place)
		}
	}
	k.nothingLeft(mem)
}

// putBig sets keys with values that cannot be compressed.
func putBig(t *testing.T, n *node.Node) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: n.Addresses().Listen})
	defer c.Close()
	value := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	for i := range killedBig {
		_, _ = random.Read(value)
		if err := c.Set(t.Context(), fmt.Sprint("big-", i), value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// killNode kills a node that makes checkpoints every second while a client writes.
func (k *killing) killNode(place string) {
	k.t.Helper()
	c, _ := child(k.t, "run", "--data-dir", k.dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--peer", "127.0.0.1:0",
		"--checkpoint-store", k.places[place], "--checkpoint-period", "1s", "--checkpoint-keep", "1", "--checkpoint-share", "off")
	c.Stdout, c.Stderr = nil, nil
	said, err := c.StderrPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		k.t.Fatal(err)
	}
	listen := ""
	lines := bufio.NewScanner(said)
	for listen == "" && lines.Scan() {
		if _, rest, serves := strings.Cut(lines.Text(), "msg=serving listen="); serves {
			listen, _, _ = strings.Cut(rest, " ")
		}
	}
	timer := time.AfterFunc(time.Duration(k.rng.Int64N(int64(4*time.Second))), func() { _ = c.Process.Kill() })
	defer timer.Stop()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
	}()
	client := redis.NewClient(&redis.Options{Addr: listen, MaxRetries: -1})
	defer client.Close()
	for i := 0; ; i++ {
		if err := client.Set(k.t.Context(), fmt.Sprint("key-", k.rng.IntN(killedKeys)), i, 0).Err(); err != nil {
			break // killed
		}
	}
	<-drained
	_ = c.Wait()
	if listen == "" {
		k.t.Fatal("the node did not serve")
	}
	k.check(place)
}

// nothingLeft looks for what killed runs left beside the checkpoints.
func (k *killing) nothingLeft(mem gofakes3.Backend) {
	k.t.Helper()
	err := filepath.WalkDir(k.places["folder"], func(path string, _ os.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), "tmp-") {
			k.t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	objects, err := mem.ListBucket("backups", &gofakes3.Prefix{}, gofakes3.ListBucketPage{})
	if err != nil {
		k.t.Fatal(err)
	}
	whole := map[string]bool{}
	for _, o := range objects.Contents {
		if dir, name := path.Split(o.Key); name == "MANIFEST.json" {
			whole[dir] = true
		}
	}
	for _, o := range objects.Contents {
		if dir, _ := path.Split(o.Key); !whole[dir] && !strings.Contains(dir, "/nodes/") {
			k.t.Errorf("%s is left", o.Key)
		}
	}
}

// target is the folder of the restore with this number.
func (k *killing) target(number int) string {
	return filepath.Join(filepath.Dir(k.dir), fmt.Sprint("restored-", number))
}

func (k *killing) args(step, place string) []string {
	args := []string{"checkpoint", step, "--data-dir", k.dir, "--checkpoint-store", k.places[place]}
	switch step {
	case "create":
		return append(args, "--all")
	case "prune":
		return append(args, "--keep", "1")
	default:
		return append(args, "--to", k.target(k.restored))
	}
}

// finish lets a step run to its end, which must be a good one.
func (k *killing) finish(step, place string) {
	k.t.Helper()
	if step == "restore" {
		k.restored++
	}
	c, output := child(k.t, k.args(step, place)...)
	begun := time.Now()
	if err := c.Run(); err != nil {
		k.t.Fatalf("%s in %s: %v: %s", step, place, err, output)
	}
	k.took[step+place] = time.Since(begun)
	k.check(place)
	if step == "restore" {
		k.checkRestored()
	}
}

// kill ends a step at a random moment of its usual length.
func (k *killing) kill(step, place string) {
	k.t.Helper()
	if step == "restore" {
		k.restored++
	}
	if step == "prune" { // there must be something to remove
		k.finish("create", place)
	}
	c, _ := child(k.t, k.args(step, place)...)
	if err := c.Start(); err != nil {
		k.t.Fatal(err)
	}
	timer := time.AfterFunc(time.Duration(k.rng.Int64N(int64(k.took[step+place])+1)), func() { _ = c.Process.Kill() })
	_ = c.Wait()
	timer.Stop()
	k.check(place)
	if step != "restore" {
		return
	}
	if _, err := node.ReadIdentity(k.target(k.restored)); err != nil {
		// Half a folder is no node's, and the next restore makes it whole.
		if bad, err := node.New(node.Options{DataDir: k.target(k.restored), Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0"}); err == nil {
			if entries, err := os.ReadDir(k.target(k.restored)); err == nil && len(entries) > 0 {
				if err := bad.Start(k.t.Context()); err == nil {
					k.t.Fatal("a node started on half a restore")
				}
				_ = bad.Stop(k.t.Context())
			}
		}
		k.restored--
		k.finish("restore", place)
		return
	}
	k.checkRestored()
}

// check holds what is listed against what it says.
func (k *killing) check(place string) {
	k.t.Helper()
	store, closeStore, err := node.OpenCheckpointStore([]string{k.dir}, k.places[place])
	if err != nil {
		k.t.Fatal(err)
	}
	defer closeStore()
	infos, err := node.ListCheckpoints(k.t.Context(), store, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := node.VerifyCheckpoints(k.t.Context(), store, infos); err != nil {
		k.t.Fatalf("in %s: %v", place, err)
	}
	nodes, err := store.Nodes(k.t.Context())
	if err != nil || len(nodes) == 0 {
		k.t.Fatalf("%d checkpoints of the node, %v", len(nodes), err)
	}
	for _, n := range nodes {
		if n.Err != nil {
			k.t.Fatalf("in %s: %v", place, n.Err)
		}
	}
	if _, err := store.Obsolete(k.t.Context(), nil, checkpoint.Retention{KeepLast: 1}, time.Now()); err != nil {
		k.t.Fatal(err)
	}
}

// checkRestored counts the keys in the newest restored folder, and removes it.
func (k *killing) checkRestored() {
	k.t.Helper()
	n, stop := runNode(k.t, k.target(k.restored), 0)
	c := redis.NewClient(&redis.Options{Addr: n.Addresses().Listen})
	defer c.Close()
	if got, err := c.DBSize(k.t.Context()).Result(); err != nil || got != killedKeys+killedBig {
		k.t.Fatalf("%d keys restored, %v", got, err)
	}
	stop()
	if err := os.RemoveAll(k.target(k.restored)); err != nil {
		k.t.Fatal(err)
	}
}
