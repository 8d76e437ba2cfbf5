package s3store

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"replicanode/checkpoint"
)

// TestErrorsSayWhatToDo checks what an operator reads when the place or the credentials are wrong.
func TestErrorsSayWhatToDo(t *testing.T) {
	s := newServer(t)
	location := "s3://backups/x?region=us-east-1&retries=2&endpoint=" + s.URL
	list := func(ctx context.Context, location string) error {
		t.Helper()
		l, err := Parse(location)
		must(t, err)
		b, err := Open(l)
		if err != nil {
			return err
		}
		defer b.Close()
		_, err = checkpoint.NewStoreAt(b).Partitions(ctx)
		return err
	}
	says := func(err error, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not in: %v", part, err)
			}
		}
	}
	says(list(ctx, strings.Replace(location, "backups", "other", 1)), "s3://other/x", "bucket does not exist")

	s.Close()
	says(list(ctx, location), "s3://backups/x", "connection refused")

	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	if err := list(ctx, location+"&credentials="+missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of credentials that is missing: %v", err)
	}
	empty := filepath.Join(dir, "empty")
	must(t, os.WriteFile(empty, []byte("[default]\n"+secretKey+" = x\n"), 0o600))
	says(list(ctx, location+"&credentials="+empty), empty, "aws_access_key_id")
	broken := filepath.Join(dir, "broken")
	must(t, os.WriteFile(broken, []byte(secretKey), 0o600))
	err := list(ctx, location+"&credentials="+broken)
	says(err, broken)
	if strings.Contains(err.Error(), secretKey) {
		t.Errorf("a secret in an error: %v", err)
	}
}

// TestNoCredentials tells an operator who forgot them.
func TestNoCredentials(t *testing.T) {
	s := newServer(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	store, _ := s.open(t, "&retries=1")
	if _, err := store.Partitions(ctx); err == nil || !strings.Contains(err.Error(), "set AWS_ACCESS_KEY_ID") {
		t.Errorf("without credentials: %v", err)
	}
}

// TestDeadlineNamesCause: an operation that is retried until its time is over says why it was.
func TestDeadlineNamesCause(t *testing.T) {
	s := newServer(t)
	s.Close()
	store, _ := s.open(t, "&retries=100")
	within, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := store.Partitions(within); err == nil || !strings.Contains(err.Error(), "connection refused") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
