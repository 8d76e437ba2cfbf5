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
	"testing/synctest"
	"time"

	"replicanode/checkpoint"
	"replicanode/internal/fixture"
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
	must(t, os.WriteFile(empty, []byte("[default]\n"+fixture.SecretKey+" = x\n"), 0o600))
	says(list(ctx, location+"&credentials="+empty), empty, "aws_access_key_id")
	broken := filepath.Join(dir, "broken")
	must(t, os.WriteFile(broken, []byte(fixture.SecretKey), 0o600))
	err := list(ctx, location+"&credentials="+broken)
	says(err, broken)
	if strings.Contains(err.Error(), fixture.SecretKey) {
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

// TestTroubleIsTold: since when and why a server does not answer, and nothing once it does.
func TestTroubleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan error, 1)
		a := &answers{now: time.Now, next: roundTripper(func(r *http.Request) (*http.Response, error) {
			select {
			case err := <-fail:
				return &http.Response{StatusCode: http.StatusOK}, err
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})}
		ask := func(ctx context.Context) {
			_, _ = a.RoundTrip((&http.Request{}).WithContext(ctx))
		}
		expect := func(since time.Time, want error) {
			t.Helper()
			if got, err := a.trouble(); !errors.Is(err, want) || !got.Equal(since) {
				t.Errorf("since %v: %v; want %v: %v", got, err, since, want)
			}
		}
		expect(time.Time{}, nil)
		refused := errors.New("connection refused")
		begun := time.Now()
		fail <- refused
		ask(t.Context())
		expect(begun, refused)
		time.Sleep(time.Second)
		within, cancel := context.WithTimeout(t.Context(), time.Second)
		ask(within)
		cancel()
		expect(begun, refused)
		fail <- nil
		ask(t.Context())
		expect(time.Time{}, nil)

		time.Sleep(time.Minute)
		begun = time.Now()
		done := make(chan struct{})
		hanging, release := context.WithCancel(t.Context())
		go func() {
			defer close(done)
			ask(hanging)
		}()
		time.Sleep(silence)
		synctest.Wait()
		expect(time.Time{}, nil)
		time.Sleep(time.Second)
		expect(begun, errNoAnswer)
		release()
		<-done
		expect(time.Time{}, nil)
	})
}

type roundTripper func(r *http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
