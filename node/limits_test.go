package node

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"replicanode/duplication"
	"replicanode/server/admin"
)

// TestWhatIsAcknowledgedCanBeDuplicated to a node with the same options, and what could not be is refused here.
func TestWhatIsAcknowledgedCanBeDuplicated(t *testing.T) {
	backup := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	a := launch(t, Options{DataDir: t.TempDir(), Partitions: 1, DuplicateTo: []duplication.Remote{{Name: "b", Addresses: []string{backup.Addresses().Peer}}}})
	c := client(t, a)
	hset := func(fields int) error {
		args := []any{"hset", bytes.Repeat([]byte("k"), 50_000)}
		for i := range fields {
			args = append(args, fmt.Sprint(i), "v")
		}
		return c.Do(t.Context(), args...).Err()
	}
	if err := hset(a.limits.mutation/50_000 + 1); err == nil || !strings.Contains(err.Error(), "command of") {
		t.Errorf("more than the largest command: %.150v", err)
	}
	if err := hset(a.limits.mutation / 50_100); err != nil {
		t.Errorf("the largest command: %.150v", err)
	}
	if err := c.Set(t.Context(), "later", "1", 0).Err(); err != nil {
		t.Errorf("later: %v", err)
	}
	eventually(t, "in sync", func() (bool, string) {
		d, err := admin.Get[DuplicationsAnswer](t.Context(), api(t, a), "/v1/duplications")
		if err != nil {
			return false, err.Error()
		}
		p := d.Pipelines[0]
		return p.Known && p.Lag.Decrees == 0, fmt.Sprintf("%v, lag %+v, %s", p.State, p.Lag, p.LastError)
	})
	if v, err := client(t, backup).Get(t.Context(), "later").Result(); err != nil || v != "1" {
		t.Errorf("at the remote: %q %v", v, err)
	}
}
