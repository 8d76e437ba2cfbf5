package s3store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// credentials are those of the file that the location names, or else of the
// environment, or of the file where other programs look for them.
func (l *Location) credentials() (*credentials.Credentials, error) {
	if l.CredentialsFile == "" {
		return credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{},
		}), nil
	}
	creds := credentials.NewFileAWSCredentials(l.CredentialsFile, "")
	if _, err := os.Stat(l.CredentialsFile); err != nil {
		return nil, fmt.Errorf("credentials file: %w", err)
	}
	if v, err := creds.GetWithContext(nil); err != nil || v.AccessKeyID == "" {
		// What the file holds, and so the parser's error, may be a secret.
		return nil, fmt.Errorf("credentials file %s: there are no aws_access_key_id and aws_secret_access_key of the profile", l.CredentialsFile)
	}
	return creds, nil
}

// answers remembers whether the server answers, and why the newest request got no
// answer: an operation that is retried until its time is over tells only that.
type answers struct {
	next http.RoundTripper
	now  func() time.Time

	// mu is a leaf.
	mu sync.Mutex
	// err is why the newest request failed, nil after an answer; since is when the
	// first of the requests began that have failed in a row.
	err   error
	since time.Time
	// waiting counts requests under way, which nobody has answered since quiet.
	waiting int
	quiet   time.Time
}

// silence is how long a request may wait for an answer before that is a problem.
// A part of an upload takes its time.
const silence = 10 * time.Second

var errNoAnswer = errors.New("a request was not answered in time")

type patienceKey struct{}

// withPatience makes every request of ctx, those included that outlive it, end with patience.
func withPatience(ctx, patience context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, patience)
}

// RoundTrip implements http.RoundTripper.
func (t *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if patience, ok := r.Context().Value(patienceKey{}).(context.Context); ok {
		ctx, cancel := context.WithCancel(r.Context())
		context.AfterFunc(patience, cancel) // the answer is read after this call
		r = r.WithContext(ctx)
	}
	begun := t.now()
	t.mu.Lock()
	if t.waiting == 0 {
		t.quiet = begun
	}
	t.waiting++
	t.mu.Unlock()
	resp, err := t.next.RoundTrip(r)
	failure := err
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		failure = errNoAnswer
	case err == nil && resp.StatusCode >= http.StatusInternalServerError:
		failure = fmt.Errorf("the server answers %s", resp.Status)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting--
	switch {
	case errors.Is(err, context.Canceled):
	case failure == nil:
		t.err, t.since, t.quiet = nil, time.Time{}, t.now()
	default:
		if t.err == nil {
			t.since = begun
		}
		if t.err == nil || failure != errNoAnswer { // which says less than what came before
			t.err = failure
		}
	}
	return resp, err
}

func (t *answers) cause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == errNoAnswer {
		return nil
	}
	return t.err
}

// trouble says since when and why nothing was answered; nil while the server answers, or nothing is asked.
func (t *answers) trouble() (since time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil && t.waiting > 0 && t.now().Sub(t.quiet) > silence {
		return t.quiet, errNoAnswer
	}
	return t.since, t.err
}
