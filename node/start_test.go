package node

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"

	"replicanode/server/admin"
)

// lines is a log that a test reads.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestClientsOfAStartingNodeAreToldToWait: from the moment the data folder is ours, connections are accepted.
func TestClientsOfAStartingNodeAreToldToWait(t *testing.T) {
	n, err := New(Options{DataDir: t.TempDir(), Partitions: 1, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { halt(t, n) })
	for _, s := range []step{
		{name: PhaseListeners, deadline: waitBound, run: n.bindListeners},
		{name: PhaseFolder, deadline: waitBound, run: n.openFolder},
	} {
		if err := n.phases.runStep(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	n.phases.enter(PhaseReplicas, n.partitionReasons)
	n.phases.progress(0, 3)
	c := goredis.NewClient(&goredis.Options{Addr: n.Addresses().Listen, MaxRetries: -1})
	defer c.Close()
	for range 2 {
		if err := c.Ping(t.Context()).Err(); err == nil || !strings.HasPrefix(err.Error(), "LOADING ") || !strings.Contains(err.Error(), "open_replicas, 0 of 3") {
			t.Errorf("PING: %v", err)
		}
	}
	r, err := admin.Get[admin.Readiness](t.Context(), api(t, n), "/readyz")
	if err != nil || r.Ready || r.Phase != PhaseReplicas || r.Total != 3 {
		t.Errorf("readyz: %+v, %v", r, err)
	}
}

// TestShortQueueLosesNoPartition although the openings of all partitions do not fit into it.
func TestShortQueueLosesNoPartition(t *testing.T) {
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 6, Workers: 1, MaxQueued: 1})
	if open := n.openPartitions(); len(open) != 6 {
		t.Fatalf("%d partitions of 6 are open", len(open))
	}
	if r := n.Ready(); !r.Ready {
		t.Fatalf("not ready: %v", r.Reasons)
	}
}

// TestLogTellsOfTheStartAndTheEnd in the order in which they happen.
func TestLogTellsOfTheStartAndTheEnd(t *testing.T) {
	log := &lines{}
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1, Logger: log.logger()})
	halt(t, n)
	rest := log.String()
	for _, want := range []string{"msg=starting", "pid=", "msg=serving", "msg=stopping", `msg="drained`, "msg=stopped"} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("no %s in its place in:\n%s", want, log.String())
		}
		rest = after
	}
	for _, bad := range []string{"<nil>", `\n`} {
		if strings.Contains(log.String(), bad) {
			t.Errorf("%q in:\n%s", bad, log.String())
		}
	}
}

// TestRefusedStartLogsNothing: the one line is the error.
func TestRefusedStartLogsNothing(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, o := range map[string]Options{
		"port":   {DataDir: filepath.Join(t.TempDir(), "data"), Peer: busy.Addr().String()},
		"folder": {DataDir: "/proc/nothing", Peer: "127.0.0.1:0"},
	} {
		log := &lines{}
		o.Listen, o.Admin, o.Logger = "127.0.0.1:0", "127.0.0.1:0", log.logger()
		n, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		err = n.Start(context.Background())
		halt(t, n)
		if err == nil || strings.Contains(err.Error(), "phase") || log.String() != "" {
			t.Errorf("%s: %v, log:\n%s", name, err, log.String())
		}
	}
}

// TestCriticallyFullDiskIsOOM to clients, with the disk's name and what is free.
func TestCriticallyFullDiskIsOOM(t *testing.T) {
	dir := t.TempDir()
	n := launch(t, Options{DataDir: dir, Partitions: 1, DiskLowBytes: 1 << 62, DiskCriticalBytes: 1 << 61})
	c := client(t, n)
	eventually(t, "writes are refused", func() (bool, string) {
		err := c.Set(t.Context(), "a", "1", 0).Err()
		return err != nil && strings.HasPrefix(err.Error(), "OOM ") && strings.Contains(err.Error(), dir) && strings.Contains(err.Error(), "bytes free"), fmt.Sprint(err)
	})
	if err := c.Get(t.Context(), "a").Err(); err != nil && err != goredis.Nil {
		t.Errorf("read: %v", err)
	}
	if text := n.diskFull(); !strings.Contains(text, dir) || !strings.Contains(text, "bytes free") {
		t.Errorf("%q", text)
	}
}

// TestEveryLimitIsAMetric, and so is what is to be watched.
func TestEveryLimitIsAMetric(t *testing.T) {
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1, DuplicateTo: remoteAt("127.0.0.1:1")})
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names, limits := map[string]bool{}, map[string]float64{}
	for _, f := range families {
		names[f.GetName()] = true
		if f.GetName() == "replicanode_node_limit" {
			for _, m := range f.GetMetric() {
				limits[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	described := describe(n)
	for _, l := range n.opts.Limits() {
		if limits[l.Flag] != l.Value {
			t.Errorf("--%s: metric %v, want %v", l.Flag, limits[l.Flag], l.Value)
		}
		if !names[l.Usage] && !strings.Contains(described, `"`+l.Usage+`"`) {
			t.Errorf("--%s: there is no metric %s", l.Flag, l.Usage)
		}
	}
}

// describe is what the node's metrics say of themselves, also those that have no value yet.
func describe(n *Node) string {
	descriptions := make(chan *prometheus.Desc, 1000)
	n.registry.Describe(descriptions)
	close(descriptions)
	var described strings.Builder
	for d := range descriptions {
		fmt.Fprintln(&described, d)
	}
	return described.String()
}

// TestDocsNameMetricsThatExist, whole: a name with an ellipsis can't be pasted into a query.
func TestDocsNameMetricsThatExist(t *testing.T) {
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1, DuplicateTo: remoteAt("127.0.0.1:1")})
	described := describe(n)
	files := []string{filepath.Join("..", "README.md")}
	if err := filepath.WalkDir(filepath.Join("..", "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	metric, suffix := regexp.MustCompile(`replicanode_[a-z0-9_]*[…*]?`), regexp.MustCompile(`_(bucket|sum|count)$`)
	named := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range metric.FindAllString(string(text), -1) {
			if name == "replicanode_" {
				continue // the beginning of them all
			}
			named++
			if !strings.Contains(described, `"`+name+`"`) && !strings.Contains(described, `"`+suffix.ReplaceAllString(name, "")+`"`) {
				t.Errorf("%s names the metric %s, which a node does not have", file, name)
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d names found", named)
	}
}

// TestLimitThatIsOff is shown as -1, whatever its unit.
func TestLimitThatIsOff(t *testing.T) {
	o := DefaultOptions()
	o.Clients.IdleTimeout, o.IORate, o.GCRate = -1, -1, -1
	for _, l := range o.Limits() {
		if l.Value < 0 && l.Value != -1 {
			t.Errorf("--%s is off and shown as %v", l.Flag, l.Value)
		}
		if l.Flag == "client-idle-timeout" && l.Value != -1 {
			t.Errorf("--%s is shown as %v", l.Flag, l.Value)
		}
	}
}

// TestVanishedPartitionIsToldOnce in full; what else is logged of it is brief.
func TestVanishedPartitionIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	halt(t, launch(t, Options{DataDir: dir, Partitions: 2}))
	if err := os.RemoveAll(filepath.Join(dir, partitionsDir, "0001")); err != nil {
		t.Fatal(err)
	}
	var log lines
	launch(t, Options{DataDir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if text := log.String(); strings.Count(text, "must not start empty") != 1 || !strings.Contains(text, "partitions=[1]") {
		t.Errorf("the log is\n%s", text)
	}
}
