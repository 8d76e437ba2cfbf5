package node

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"replicanode/plog"
	"replicanode/replica"
)

// TestReadyzNamesADamagedLog: when a log rots under a serving node and somebody reads it, /readyz says once what is damaged where, and
// the other partition serves.
func TestReadyzNamesADamagedLog(t *testing.T) {
	dir := t.TempDir()
	n := launch(t, Options{DataDir: dir, Partitions: 2, SegmentBytes: 1 << 20})
	c := client(t, n)
	sick, well := n.host.Partition(0), n.host.Partition(1)
	keys := map[*replica.Partition]string{}
	for i := 0; len(keys) < 2; i++ {
		key := strconv.Itoa(i)
		keys[n.host.Route([]byte(key))] = key
	}
	for range 30 {
		if err := c.Set(t.Context(), keys[sick], strings.Repeat("bulk", 10<<10), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	rot(t, filepath.Join(dir, partitionsDir, replica.PartitionDir(0), replica.LogDir, "0000000000000001.seg"), "bulkbulk")
	if r := n.Ready(); !r.Ready {
		t.Fatalf("%+v", r)
	}
	_, err := sick.Log().Entries(1, 8, 1<<40)
	var damage *plog.ErrCorrupt
	if !errors.As(err, &damage) {
		t.Fatalf("read: %v", err)
	}
	r := n.Ready()
	if r.Ready || len(r.Reasons) != 1 || strings.Count(r.Reasons[0], damage.Error()) != 1 || strings.Count(r.Reasons[0], "damaged") != 1 {
		t.Errorf("%+v", r)
	}
	if err := n.Live(); err != nil {
		t.Errorf("live: %v", err)
	}
	if err := c.Get(t.Context(), keys[sick]).Err(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a key of the damaged partition: %v", err)
	}
	if err := c.Set(t.Context(), keys[well], "v", 0).Err(); err != nil {
		t.Errorf("a key of the other partition: %v", err)
	}
}

// rot flips a bit behind the first place of text in a file.
func rot(t *testing.T, name, text string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), text)
	if at < 0 {
		t.Fatalf("%s does not hold %q", name, text)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{text[0] ^ 1}, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
