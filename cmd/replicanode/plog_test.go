package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"replicanode/plog"
)

// TestDumpOfARangeHasOnlyItsHardStates.
func TestDumpOfARangeHasOnlyItsHardStates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plog")
	l, err := plog.Open(dir, 0, plog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 6; i++ {
		done := make(chan error, 1)
		h := plog.HardState{Term: 1, Vote: 1, Commit: i}
		if err := l.Append([]plog.Entry{{Index: i, Term: 1}}, &h, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := command(t, "plog", "dump", dir, "--from", "3", "--to", "4")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	if n := strings.Count(stdout, "hard state"); n != 2 || !strings.Contains(stdout, "commit 3") || !strings.Contains(stdout, "commit 4") {
		t.Errorf("%d hard states in a range of two decrees:\n%s", n, stdout)
	}
	if code, stdout, _ = command(t, "plog", "dump", dir); code != 0 || strings.Count(stdout, "hard state") < 6 {
		t.Errorf("the whole log, exit code %d:\n%s", code, stdout)
	}
}

// TestPlogCommandsAreStopped by what stops a command.
func TestPlogCommandsAreStopped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plog")
	l, err := plog.Open(dir, 0, plog.Options{})
	if err == nil {
		err = l.AppendSync([]plog.Entry{{Index: 1, Term: 1}}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, sub := range []string{"verify", "dump"} {
		var out, errs bytes.Buffer
		if code := execute(ctx, []string{"replicanode", "plog", sub, dir}, &out, &errs); code == 0 || out.Len() > 0 || !strings.Contains(errs.String(), "context canceled") {
			t.Errorf("%s: exit code %d, %q, %q", sub, code, out.String(), errs.String())
		}
	}
}
