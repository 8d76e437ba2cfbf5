package replica

import (
	"os"
	"path/filepath"
	"testing"
)

// TestEmptyValueLogsAreRemoved: only those, and only they.
func TestEmptyValueLogsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"000001.vlog": "x", "000002.vlog": "", "000003.sst": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeEmptyValueLogs(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"000001.vlog": true, "000002.vlog": false, "000003.sst": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
