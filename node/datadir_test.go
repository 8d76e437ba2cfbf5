package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func mustOpen(t *testing.T, path string, want Identity) *Folders {
	t.Helper()
	f, err := OpenFolders([]string{path}, want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestFolderKeepsItsIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "data")
	f := mustOpen(t, path, Identity{Partitions: 4})
	id := f.Identity
	if id.ClusterID == 0 || id.ClusterID >= 1<<53 || id.NodeID != 1 || id.Partitions != 4 {
		t.Fatalf("new identity %+v", id)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if again := mustOpen(t, path, Identity{}); again.Identity != id {
		t.Fatalf("reopened as %+v, was %+v", again.Identity, id)
	}
}

func TestFolderOfAnotherProcessIsRefused(t *testing.T) {
	path := t.TempDir()
	mustOpen(t, path, Identity{Partitions: 4})
	if _, err := OpenFolders([]string{path}, Identity{}); !errors.Is(err, ErrFolderInUse) || !strings.HasPrefix(err.Error(), "--data-dir "+path+": ") || !strings.Contains(err.Error(), "stop that process") {
		t.Fatalf("second open: %v", err)
	}
}

func TestFolderThatIsNotOursIsLeftAlone(t *testing.T) {
	for _, tc := range []struct {
		name, file, content string
		want                Identity
		reason              string
	}{
		{"somebody's files", "letter.txt", "dear", Identity{}, `--data-dir FOLDER: is not empty and has no NODE file (it holds "letter.txt"); give`},
		{"newer format", "NODE", `{"format_version":3,"cluster_id":1,"node_id":1,"partitions":1}`, Identity{}, "--data-dir FOLDER: has format 3, newer than this build's 2; run the newer build"},
		{"damaged identity", "NODE", `{"format_version":1`, Identity{}, "--data-dir FOLDER: NODE is damaged"},
		{"empty identity", "NODE", `{"format_version":1}`, Identity{}, "--data-dir FOLDER: NODE is damaged"},
		{"other partitions", "NODE", `{"format_version":1,"cluster_id":1,"node_id":1,"partitions":8}`, Identity{Partitions: 16}, "--partitions 16"},
		{"other cluster", "NODE", `{"format_version":1,"cluster_id":1,"node_id":1,"partitions":8}`, Identity{ClusterID: 7}, "--cluster-id 7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.WriteFile(filepath.Join(path, tc.file), []byte(tc.content), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := OpenFolders([]string{path}, tc.want)
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), path, "FOLDER"), tc.reason) {
				t.Fatalf("got %v, want a reason with %q", err, tc.reason)
			}
			entries, err := os.ReadDir(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != tc.file && e.Name() != lockFile {
					t.Errorf("%s was written to a refused folder", e.Name())
				}
			}
		})
	}
}

// A crash while the identity is written leaves a temporary file, and the folder is still a new one.
func TestFolderSurvivesACrashWhileItIsMade(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, identityFile+".tmp"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path, Identity{Partitions: 2})
}

// Folders that the process can't use are refused with the flag, its value and what to do.
func TestFolderThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("dear"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, reason := range map[string]string{
		file:                        "is not a folder",
		filepath.Join(file, "data"): "is not a folder",
		"/proc/nothing":             "can't be created",
	} {
		f, err := OpenFolders([]string{path}, Identity{Partitions: 1})
		if err == nil {
			_ = f.Close()
			t.Errorf("%s was opened", path)
			continue
		}
		text := err.Error()
		if !strings.HasPrefix(text, "--data-dir "+path+": ") || !strings.Contains(text, reason) || !strings.Contains(text, "give a") || strings.Contains(text, "\n") {
			t.Errorf("%s: %s", path, text)
		}
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "dear" {
		t.Errorf("the file became %q, %v", content, err)
	}
}
