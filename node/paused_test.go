package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"replicanode/duplication"
	"replicanode/server/admin"
)

func TestPausedRemotesStayPausedOverRestarts(t *testing.T) {
	dir := t.TempDir()
	o := Options{DataDir: dir, Partitions: 2, DuplicateTo: []duplication.Remote{{Name: "away", Addresses: []string{"127.0.0.1:1"}}}}
	states := func(n *Node, want duplication.State) {
		t.Helper()
		c := api(t, n)
		eventually(t, want.String(), func() (bool, string) {
			a, err := admin.Get[DuplicationsAnswer](t.Context(), c, "/v1/duplications")
			for _, p := range a.Pipelines {
				if p.State != want {
					return false, fmt.Sprintf("%+v", p)
				}
			}
			return err == nil && len(a.Pipelines) == 2, fmt.Sprint(a, err)
		})
	}
	steer := func(n *Node, verb string) {
		t.Helper()
		if _, err := admin.Post[Done](t.Context(), api(t, n), "/v1/duplications/away/"+verb, nil); err != nil {
			t.Fatal(err)
		}
	}
	n := launch(t, o)
	steer(n, "pause")
	states(n, duplication.StatePaused)
	halt(t, n)
	n = launch(t, o)
	states(n, duplication.StatePaused)
	steer(n, "resume")
	states(n, duplication.StateBackoff)
	halt(t, n)
	n = launch(t, o)
	states(n, duplication.StateBackoff)
	halt(t, n)

	if err := os.WriteFile(filepath.Join(dir, pausedFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	damaged, err := New(Options{DataDir: dir, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	err = damaged.Start(t.Context())
	halt(t, damaged)
	if err == nil || !strings.Contains(err.Error(), pausedFile) {
		t.Errorf("start with a damaged file: %v", err)
	}
}
