package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/minio/minio-go/v7"
)

// reader reads one object, and goes on where it was when the connection breaks.
type reader struct {
	b    *Backend
	ctx  context.Context
	path string
	body io.ReadCloser
	etag string
	off  int64
	size int64
	// broken counts the breaks since the last byte arrived.
	broken int
}

// open asks for the object from off on, the same object as before.
func (r *reader) open() error {
	var o minio.GetObjectOptions
	if r.etag != "" {
		if err := o.SetMatchETag(r.etag); err != nil {
			return fmt.Errorf("read %s: %w", r.b.Path(r.path), err)
		}
		if r.off > 0 {
			if err := o.SetRange(r.off, 0); err != nil {
				return fmt.Errorf("read %s: %w", r.b.Path(r.path), err)
			}
		}
	}
	core := minio.Core{Client: r.b.client}
	body, info, _, err := core.GetObject(r.ctx, r.b.l.Bucket, r.b.key(r.path), o)
	if err != nil {
		return r.b.wrap("read", r.path, err)
	}
	r.body = body
	if r.etag == "" {
		r.etag, r.size = info.ETag, info.Size
	}
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.off >= r.size {
		return 0, io.EOF
	}
	n, err := r.body.Read(p)
	r.off += int64(n)
	if n > 0 {
		r.broken = 0
	}
	switch {
	case err == nil, r.off >= r.size:
		return n, nil
	case n > 0:
		return n, nil // the next call meets the error again
	}
	return 0, r.resume(err)
}

// resume opens the rest, with growing waits.
func (r *reader) resume(cause error) error {
	_ = r.body.Close()
	if r.broken++; r.broken > r.b.l.Retries {
		return fmt.Errorf("read %s at byte %d of %d: %w", r.b.Path(r.path), r.off, r.size, cause)
	}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 5*time.Second
	_, err := backoff.Retry(r.ctx, func() (struct{}, error) {
		err := r.open()
		if errors.Is(err, fs.ErrNotExist) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(uint(r.b.l.Retries)))
	if err != nil {
		return fmt.Errorf("%w, after the connection broke: %w", err, cause)
	}
	return nil
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.body.Close() }
