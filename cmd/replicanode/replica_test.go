package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"replicanode/node"
	"replicanode/plog"
)

// killedNode makes the data folder of a node that was killed while its journal held batches of both partitions.
func killedNode(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "data")
	_, stop := runNode(t, dir, 2)
	stop()
	if err := os.CopyFS(olderJournal(dir), os.DirFS(filepath.Join(dir, plog.JournalDir))); err != nil {
		t.Fatal(err)
	}
	j, _, err := plog.OpenJournal(filepath.Join(dir, plog.JournalDir), journalOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	s := plog.NewSyncer(plog.SyncerOptions{Journal: j})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var logs []*plog.Log
	for i := range uint32(2) {
		l, err := plog.Open(logOf(dir, i), i, plog.Options{Syncer: s})
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	done := make(chan error, len(logs))
	for range 200 {
		for _, l := range logs {
			hs := l.HardState()
			if err := l.Append(nil, &hs, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
		}
		for range logs {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	killed := filepath.Join(t.TempDir(), "killed")
	if err := errors.Join(os.CopyFS(killed, os.DirFS(dir)), os.Rename(olderJournal(dir), olderJournal(killed))); err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return killed
}

// olderJournal is where a copy of a data folder's journal is that was made before the node had written.
func olderJournal(dir string) string { return dir + "-older-journal" }

func logOf(dir string, partition uint32) string {
	return filepath.Join(dir, "partitions", []string{"0000", "0001"}[partition], "plog")
}

func journalOf(dir string) plog.JournalOptions {
	return plog.JournalOptions{LogDir: func(partition uint32) string { return logOf(dir, partition) }}
}

// TestDropOfAKilledNode: what the journal holds of a replica is in its folder before the folder is put away, so that it can come back whole.
func TestDropOfAKilledNode(t *testing.T) {
	dir := killedNode(t)
	out := succeeds(t, nil, "replica", "drop", "--partition", "1", "--data-dir", dir)
	name := strings.TrimSuffix(strings.Fields(out)[2], ";")
	j, report, err := plog.OpenJournal(filepath.Join(dir, plog.JournalDir), journalOf(dir))
	if err != nil || report.Blocks > 0 {
		t.Fatalf("left in the journal: %v, %+v", err, report)
	}
	if err := plog.NewSyncer(plog.SyncerOptions{Journal: j}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	succeeds(t, nil, "gc", "undelete", name, "--data-dir", dir)
	_, stop := runNode(t, dir, 0)
	stop()
}

// TestDropElsewhere: a partition whose folder was moved to another disk after a kill can be dropped there, and the journal of the disk it was on does
// not wait for it any more.
func TestDropElsewhere(t *testing.T) {
	dir, other := killedNode(t), filepath.Join(t.TempDir(), "other")
	f, err := node.OpenFolders([]string{dir, other}, node.Identity{})
	if err == nil {
		err = f.Close()
	}
	moved := filepath.Join(other, "partitions", "0001")
	if err := errors.Join(err, os.MkdirAll(filepath.Dir(moved), 0o755), os.Rename(filepath.Dir(logOf(dir, 1)), moved)); err != nil {
		t.Fatal(err)
	}
	succeeds(t, nil, "replica", "drop", "--partition", "1", "--data-dir", dir, "--data-dir", other)
	j, report, err := plog.OpenJournal(filepath.Join(dir, plog.JournalDir), journalOf(dir))
	if err != nil || report.Away != nil || report.Blocks > 0 {
		t.Fatalf("left in the journal: %v, %+v", err, report)
	}
	if err := plog.NewSyncer(plog.SyncerOptions{Journal: j}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestFolderGoneFromAKilledNode: while the folder of a partition with batches in the journal is away the others serve, and the journal
// keeps them until it is back.
func TestFolderGoneFromAKilledNode(t *testing.T) {
	dir := killedNode(t)
	folder := filepath.Dir(logOf(dir, 1))
	if err := os.Rename(folder, dir+"-aside"); err != nil {
		t.Fatal(err)
	}
	n, stop := runNode(t, dir, 0)
	if ready := fmt.Sprintf("%+v", n.Ready()); !strings.Contains(ready, "has vanished") {
		t.Errorf("ready without partition 1: %s", ready)
	}
	stop()
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"-aside", folder); err != nil {
		t.Fatal(err)
	}
	j, report, err := plog.OpenJournal(filepath.Join(dir, plog.JournalDir), journalOf(dir))
	if err != nil || report.Entries == 0 || report.Away != nil {
		t.Fatalf("brought back: %v, %+v", err, report)
	}
	if err := plog.NewSyncer(plog.SyncerOptions{Journal: j}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, stop = runNode(t, dir, 0)
	stop()
}

// TestDamagedManifestOfAKilledNode: the others serve, and the journal keeps what it has of the damaged log until that is mended.
func TestDamagedManifestOfAKilledNode(t *testing.T) {
	dir := killedNode(t)
	manifest := filepath.Join(logOf(dir, 1), "MANIFEST")
	whole, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(whole)
	damaged[30] ^= 1
	if err := os.WriteFile(manifest, damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	n, stop := runNode(t, dir, 0)
	if ready := fmt.Sprintf("%+v", n.Ready()); !strings.Contains(ready, "corrupt manifest: partition 1") || !strings.Contains(ready, "drop the replica") || strings.Contains(ready, "partition 0") {
		t.Errorf("ready with a damaged manifest of partition 1: %s", ready)
	}
	stop()
	if err := os.WriteFile(manifest, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	j, report, err := plog.OpenJournal(filepath.Join(dir, plog.JournalDir), journalOf(dir))
	if err != nil || report.Logs != 1 || report.Away != nil {
		t.Fatalf("brought back: %v, %+v", err, report)
	}
	if err := plog.NewSyncer(plog.SyncerOptions{Journal: j}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, stop = runNode(t, dir, 0)
	if r := n.Ready(); !r.Ready {
		t.Errorf("mended: %+v", r)
	}
	stop()
}

// TestOlderJournalOfAKilledNode: an older copy of the journal alone is refused with what to do, by the node and by a drop, until the right one is back or the
// loss is accepted.
func TestOlderJournalOfAKilledNode(t *testing.T) {
	dir := killedNode(t)
	journal := filepath.Join(dir, plog.JournalDir, "JOURNAL")
	newest, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	older, err := os.ReadFile(filepath.Join(olderJournal(dir), "JOURNAL"))
	if err := errors.Join(err, os.WriteFile(journal, older, 0o644)); err != nil {
		t.Fatal(err)
	}
	said := []string{journal + " goes to generation 3, offset 0, but went to generation 5", "when the log of partition 0 noted it: it is an older copy", "--accept-journal-loss"}
	n, err := node.New(node.Options{DataDir: dir, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	err = n.Start(t.Context())
	if stopErr := n.Stop(t.Context()); err == nil || stopErr != nil {
		t.Fatalf("started with an older journal: %v, %v", err, stopErr)
	}
	for _, s := range append(said, "put the folder") {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("no %q in %v", s, err)
		}
	}
	fails(t, said, "replica", "drop", "--partition", "1", "--data-dir", dir)
	if err := os.WriteFile(journal, newest, 0o644); err != nil {
		t.Fatal(err)
	}
	again, stop := runNode(t, dir, 0)
	if r := again.Ready(); !r.Ready {
		t.Errorf("with its journal: %+v", r)
	}
	stop()
}
