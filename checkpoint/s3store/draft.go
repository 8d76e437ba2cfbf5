package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/minio/minio-go/v7"

	"replicanode/checkpoint"
)

// draft is a checkpoint without a manifest.
type draft struct {
	b      *Backend
	ctx    context.Context
	folder string
	sizes  map[string]int64 // of finished chunks
}

// Create implements checkpoint.Draft.
func (d *draft) Create(name string) (checkpoint.DraftFile, error) {
	pr, pw := io.Pipe()
	patience, abandon := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(withPatience(d.ctx, patience))
	u := &upload{d: d, name: name, pipe: pw, ctx: ctx, cancel: cancel, abandon: abandon, done: make(chan struct{})}
	// Whoever writes waits for the server no longer than ctx lasts.
	context.AfterFunc(ctx, func() { _ = pr.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer close(u.done)
		u.info, u.err = d.b.client.PutObject(ctx, d.b.l.Bucket, d.b.key(path.Join(d.folder, name)), pr, -1, d.b.putOptions())
		// What is still written from now on must not block.
		_ = pr.CloseWithError(errors.Join(errUploadEnded, u.err))
	}()
	return u, nil
}

// Open implements checkpoint.Draft: the server has checked the digest of every part.
func (d *draft) Open(string) (io.ReadCloser, error) { return nil, nil }

// Publish implements checkpoint.Draft.
func (d *draft) Publish(manifest []byte) error {
	objects, err := d.b.list(d.ctx, d.folder, false)
	if err != nil {
		return err
	}
	stored := make(map[string]int64)
	for _, o := range objects {
		stored[o.name] = o.size
	}
	for name, size := range d.sizes {
		if got, ok := stored[name]; !ok || got != size {
			return fmt.Errorf("%s has %d bytes, %d were sent", d.b.Path(path.Join(d.folder, name)), got, size)
		}
	}
	for name := range stored {
		// A checkpoint that was in this place may have had more chunks.
		if _, ours := d.sizes[name]; !ours {
			if err := d.b.Delete(d.ctx, path.Join(d.folder, name)); err != nil {
				return err
			}
		}
	}
	return d.b.Put(d.ctx, path.Join(d.folder, marker), manifest)
}

// Discard implements checkpoint.Draft. Without a manifest the chunks are nothing, and Clean removes them.
func (d *draft) Discard() {}

var errUploadEnded = errors.New("the upload has ended")

// upload is a chunk on its way. It is stored when Finish returns nil, and never before.
type upload struct {
	d      *draft
	name   string
	pipe   *io.PipeWriter
	ctx    context.Context
	cancel context.CancelFunc
	// abandon ends even the request with which the client gives up a cancelled upload.
	abandon context.CancelFunc
	size    int64
	ended   bool

	done chan struct{}
	info minio.UploadInfo // both set before done is closed
	err  error
}

// Write implements checkpoint.DraftFile.
func (u *upload) Write(p []byte) (n int, err error) {
	for n < len(p) {
		piece := p[n:min(len(p), n+rateStep)]
		if l := u.d.b.limiter; l != nil {
			if err := l.WaitN(u.ctx, len(piece)); err != nil {
				return n, err
			}
		}
		m, err := u.pipe.Write(piece)
		n += m
		u.size += int64(m)
		if err != nil {
			return n, u.d.b.wrap("store", path.Join(u.d.folder, u.name), err)
		}
	}
	return n, nil
}

// Finish implements checkpoint.DraftFile.
func (u *upload) Finish() error {
	u.ended = true
	_ = u.pipe.Close()
	u.wait()
	u.cancel()
	if u.err == nil && u.info.Size != u.size {
		u.err = fmt.Errorf("%d bytes stored of %d", u.info.Size, u.size)
	}
	if u.err != nil {
		return u.d.b.wrap("store", path.Join(u.d.folder, u.name), u.err)
	}
	u.d.sizes[u.name] = u.size
	return nil
}

// Close implements checkpoint.DraftFile.
func (u *upload) Close() error {
	if u.ended {
		return nil
	}
	u.ended = true
	u.cancel()
	_ = u.pipe.CloseWithError(context.Canceled)
	u.wait()
	return nil
}

// wait returns when the upload has ended. A server that is told to forget the parts of a cancelled one, and does not answer, is not
// waited for: Clean tells it the next time.
func (u *upload) wait() {
	defer u.abandon()
	select {
	case <-u.done:
		return
	case <-u.ctx.Done():
	}
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	select {
	case <-u.done:
	case <-timer.C:
	}
	u.abandon()
	<-u.done
}

// farewell is how long the server has to take note that an upload is given up.
const farewell = 2 * time.Second
