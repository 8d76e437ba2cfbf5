package node

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"replicanode/internal/fixture"
	"replicanode/server/admin"
)

// TestObjectStore checkpoints a node into an object store, and makes another one from nothing but what is there.
func TestObjectStore(t *testing.T) {
	handler, _ := fixture.ObjectStore(t)
	server := httptest.NewServer(handler)
	defer server.Close()
	location := "s3://backups/one?region=us-east-1&endpoint=" + server.URL
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 2, CheckpointStore: location})
	fill(t, client(t, n), 0, 200)
	jobs, err := admin.Post[JobsAnswer](t.Context(), api(t, n), "/v1/checkpoints", CheckpointRequest{All: true})
	if err != nil {
		t.Fatal(err)
	}
	<-n.jobs.byID[jobs.Jobs[0].ID].Done()
	if err := n.jobs.byID[jobs.Jobs[0].ID].Err(); err != nil {
		t.Fatal(err)
	}
	store, closeStore, err := OpenCheckpointStore(nil, location)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore()
	to := filepath.Join(t.TempDir(), "restored")
	states, err := RestoreCheckpoints(t.Context(), RestoreOptions{Store: store, To: to, Node: "latest"})
	if err != nil || len(states) != 2 {
		t.Fatal(states, err)
	}
	check(t, client(t, launch(t, Options{DataDir: to})), 200)

	other, err := New(Options{DataDir: t.TempDir(), Partitions: 2, CheckpointStore: location, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	err = other.Start(t.Context())
	if serr := other.Stop(t.Context()); serr != nil {
		t.Error(serr)
	}
	if err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Fatalf("two clusters in one place: %v", err)
	}
	_, err = New(Options{CheckpointStore: "s3://key:verysecret@backups/one"})
	if err == nil || strings.Contains(err.Error(), "verysecret") {
		t.Fatalf("credentials in a location: %v", err)
	}
}
