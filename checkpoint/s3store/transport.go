package s3store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"

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

// lastFailure remembers why the newest request got no answer: an operation that
// is retried until its time is over tells only that.
type lastFailure struct {
	next http.RoundTripper
	err  atomic.Pointer[error] // nil after an answer
}

// RoundTrip implements http.RoundTripper.
func (t *lastFailure) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	switch {
	case err == nil:
		t.err.Store(nil)
	case !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		t.err.Store(&err)
	}
	return resp, err
}

func (t *lastFailure) cause() error {
	if err := t.err.Load(); err != nil {
		return *err
	}
	return nil
}
