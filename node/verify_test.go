package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"replicanode/checkpoint"
	"replicanode/server/admin"
)

// TestVerifyNamesWhatIsBuiltOnDamage damages a full checkpoint: the incremental one on top of it can't be restored, either.
func TestVerifyNamesWhatIsBuiltOnDamage(t *testing.T) {
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	for round := range 2 {
		fill(t, client(t, n), 100*round, 100*round+100)
		jobs, err := admin.Post[JobsAnswer](t.Context(), api(t, n), "/v1/checkpoints", CheckpointRequest{All: true})
		if err != nil {
			t.Fatal(err)
		}
		<-n.jobs.byID[jobs.Jobs[0].ID].Done()
	}
	store := n.checkpoints.Store()
	infos, err := ListCheckpoints(t.Context(), store, nil)
	if err != nil || len(infos) != 2 || infos[1].Manifest.Parent != infos[0].Decree {
		t.Fatalf("%+v, %v", infos, err)
	}
	chunk := filepath.Join(infos[0].Path, "000001.chunk")
	b, err := os.ReadFile(chunk)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(chunk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := VerifyCheckpoints(t.Context(), store, infos)
	if err == nil || len(found) != 2 || !strings.Contains(found[0].Problem, "000001.chunk") || !strings.Contains(found[1].Problem, "built on") {
		t.Fatalf("%+v, %v", found, err)
	}
	restored := []checkpoint.RestoredState{{Partition: infos[0].Partition, Decree: infos[0].Decree}}
	if newer, err := PassedBy(t.Context(), RestoreOptions{Store: store}, restored); err != nil || len(newer) != 0 {
		t.Errorf("passed by: %v, %v", newer, err)
	}
	if err := os.WriteFile(filepath.Join(infos[1].Path, "MANIFEST.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if newer, err := PassedBy(t.Context(), RestoreOptions{Store: store}, restored); err != nil || len(newer) != 1 || !strings.Contains(newer[0].Error(), "MANIFEST.json") {
		t.Errorf("passed by: %v, %v", newer, err)
	}
	if newer, err := PassedBy(t.Context(), RestoreOptions{Store: store, Decree: infos[0].Decree}, restored); err != nil || len(newer) != 0 {
		t.Errorf("of the one asked for: %v, %v", newer, err)
	}
}
