package s3store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/time/rate"

	"replicanode/checkpoint"
)

// marker is the object that makes a checkpoint exist.
const marker = "MANIFEST.json"

// quickTimeout bounds each request that carries little data, its retries included.
const quickTimeout = 2 * time.Minute

// Backend is a checkpoint.Backend in an object store.
type Backend struct {
	l         Location
	client    *minio.Client
	transport *http.Transport
	answers   *answers
	limiter   *rate.Limiter // nil: no bound
	// searched are the folders whose uploads were looked for among those of the whole bucket.
	searched sync.Map
}

// rateStep is how much is sent between two looks at the rate.
const rateStep = 64 << 10

// Open makes the client. Nothing is asked of the server yet.
func Open(l Location) (*Backend, error) {
	if err := l.validate(); err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(l.Secure)
	if err != nil {
		return nil, fmt.Errorf("make transport to %s: %w", l.Host, err)
	}
	// A server that accepts a request and never answers must not hold a checkpoint for ever.
	transport.ResponseHeaderTimeout = time.Minute
	creds, err := l.credentials()
	if err != nil {
		return nil, err
	}
	heard := &answers{next: transport, now: time.Now}
	client, err := minio.New(l.Host, &minio.Options{
		Creds:  creds,
		Secure: l.Secure, Region: l.Region, Transport: heard, MaxRetries: l.Retries,
		// Not every server understands checksums that follow the data, and one that
		// does not may store them as data.
		TrailingHeaders: false,
	})
	if err != nil {
		return nil, fmt.Errorf("make client for %s: %w", l.Host, err)
	}
	b := &Backend{l: l, client: client, transport: transport, answers: heard}
	if l.BytesPerSecond > 0 {
		b.limiter = rate.NewLimiter(rate.Limit(l.BytesPerSecond), rateStep)
	}
	return b, nil
}

// Close ends idle connections.
func (b *Backend) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// Trouble implements checkpoint.Troubled.
func (b *Backend) Trouble() (since time.Time, err error) { return b.answers.trouble() }

// Path implements checkpoint.Backend.
func (b *Backend) Path(p string) string {
	return Scheme + path.Join(b.l.Bucket, b.l.Prefix, p)
}

func (b *Backend) key(p string) string { return path.Join(b.l.Prefix, p) }

// folderKey is the prefix of all keys in a folder.
func (b *Backend) folderKey(folder string) string {
	if key := b.key(folder); key != "" {
		return key + "/"
	}
	return ""
}

// wrap says what was being done, and makes what does not exist fs.ErrNotExist.
func (b *Backend) wrap(what, p string, err error) error {
	if err == nil {
		return nil
	}
	switch minio.ToErrorResponse(err).Code {
	case minio.NoSuchKey, minio.NoSuchUpload:
		return fmt.Errorf("%s %s: %w", what, b.Path(p), fs.ErrNotExist)
	case minio.AccessDenied:
		if v, cerr := b.client.GetCreds(); cerr == nil && v.AccessKeyID == "" {
			return fmt.Errorf("%s %s at %s: %w No credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with credentials=FILE", what, b.Path(p), b.l.Host, err)
		}
	}
	if cause := b.answers.cause(); cause != nil && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, cause) {
		return fmt.Errorf("%s %s at %s: %w; the newest attempt: %w", what, b.Path(p), b.l.Host, err, cause)
	}
	return fmt.Errorf("%s %s at %s: %w", what, b.Path(p), b.l.Host, err)
}

// object is what a listing tells.
type object struct {
	name string // within the folder, with a slash at the end of a folder
	size int64
}

func (b *Backend) list(ctx context.Context, folder string, recursive bool) ([]object, error) {
	ctx, cancel := context.WithTimeout(ctx, quickTimeout)
	defer cancel()
	prefix := b.folderKey(folder)
	var found []object
	for o := range b.client.ListObjectsIter(ctx, b.l.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: recursive}) {
		if o.Err != nil {
			return nil, b.wrap("list", folder, o.Err)
		}
		if name := strings.TrimPrefix(o.Key, prefix); name != "" {
			found = append(found, object{name, o.Size})
		}
	}
	return found, ctx.Err()
}

// List implements checkpoint.Backend.
func (b *Backend) List(ctx context.Context, folder string) ([]string, error) {
	objects, err := b.list(ctx, folder, false)
	var names []string
	for _, o := range objects {
		names = append(names, strings.TrimSuffix(o.name, "/"))
	}
	return names, err
}

// Sizes implements checkpoint.Backend.
func (b *Backend) Sizes(ctx context.Context, folder string) (map[string]int64, error) {
	objects, err := b.list(ctx, folder, false)
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(objects))
	for _, o := range objects {
		sizes[o.name] = o.size
	}
	if _, ok := sizes[marker]; !ok {
		return nil, fmt.Errorf("%s has no manifest: %w", b.Path(folder), fs.ErrNotExist)
	}
	return sizes, nil
}

// putOptions let the server check what it stores. The digest of the whole body
// would have to be known before its first byte is sent, or follow it as a trailer.
func (b *Backend) putOptions() minio.PutObjectOptions {
	return minio.PutObjectOptions{
		SendContentMd5: true, DisableContentSha256: true, PartSize: uint64(b.l.PartBytes),
		ContentType: "application/octet-stream",
	}
}

// Put implements checkpoint.Backend: an object appears whole or not at all.
func (b *Backend) Put(ctx context.Context, p string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, quickTimeout)
	defer cancel()
	o := b.putOptions()
	o.DisableMultipart = true
	info, err := b.client.PutObject(ctx, b.l.Bucket, b.key(p), bytes.NewReader(data), int64(len(data)), o)
	if err == nil && info.Size != int64(len(data)) {
		err = fmt.Errorf("%d bytes stored of %d", info.Size, len(data))
	}
	return b.wrap("store", p, err)
}

// Delete implements checkpoint.Backend.
func (b *Backend) Delete(ctx context.Context, p string) error {
	ctx, cancel := context.WithTimeout(ctx, quickTimeout)
	defer cancel()
	err := b.wrap("remove", p, b.client.RemoveObject(ctx, b.l.Bucket, b.key(p), minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Remove implements checkpoint.Backend: the manifest goes first.
func (b *Backend) Remove(ctx context.Context, folder string, each checkpoint.Each) error {
	if err := each(0, func() error { return b.Delete(ctx, path.Join(folder, marker)) }); err != nil {
		return err
	}
	return b.removeAll(ctx, folder, each)
}

func (b *Backend) removeAll(ctx context.Context, folder string, each checkpoint.Each) error {
	var objects []object
	err := each(0, func() (err error) {
		objects, err = b.list(ctx, folder, true)
		return err
	})
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := each(o.size, func() error { return b.Delete(ctx, path.Join(folder, o.name)) }); err != nil {
			return err
		}
	}
	return nil
}

// Clean implements checkpoint.Backend.
func (b *Backend) Clean(ctx context.Context, home string, each checkpoint.Each) error {
	if err := each(0, func() error { return b.abortUploads(ctx, home) }); err != nil {
		return err
	}
	var objects []object
	if err := each(0, func() (err error) {
		objects, err = b.list(ctx, home, true)
		return err
	}); err != nil {
		return err
	}
	whole := make(map[string]bool)
	for _, o := range objects {
		if dir, name := path.Split(o.name); name == marker {
			whole[dir] = true
		}
	}
	for _, o := range objects {
		// What lies directly in the folder was put whole.
		if dir, _ := path.Split(o.name); dir != "" && !whole[dir] {
			if err := each(o.size, func() error { return b.Delete(ctx, path.Join(home, o.name)) }); err != nil {
				return fmt.Errorf("remove leftover: %w", err)
			}
		}
	}
	return nil
}

// abortUploads gives up uploads in parts that were never completed. Their parts take space that no listing shows.
func (b *Backend) abortUploads(ctx context.Context, home string) error {
	ctx, cancel := context.WithTimeout(ctx, quickTimeout)
	defer cancel()
	core := minio.Core{Client: b.client}
	open, err := b.openUploads(ctx, b.folderKey(home), b.folderKey(home))
	if err != nil {
		return b.wrap("list uploads to", home, err)
	}
	if _, done := b.searched.Load(home); !done {
		// Some servers list by the exact name of an object only, but all uploads without one. Once
		// is enough, as only what ended without warning leaves any. Not everybody may list all.
		all, err := b.openUploads(ctx, "", b.folderKey(home))
		if err == nil {
			b.searched.Store(home, true)
			open = append(open, all...)
		}
	}
	for _, upload := range open {
		err := core.AbortMultipartUpload(ctx, b.l.Bucket, upload.Key, upload.UploadID)
		if err := b.wrap("give up an upload to", home, err); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return ctx.Err()
}

// mostUploads bounds how many uploads of a bucket, to whatever prefix, are looked at.
const mostUploads = 10_000

// openUploads asks for uploads that were never completed, and returns those below a prefix.
func (b *Backend) openUploads(ctx context.Context, ask, below string) (open []minio.ObjectMultipartInfo, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing
	n := 0
	for upload := range b.client.ListIncompleteUploads(ctx, b.l.Bucket, ask, true) {
		if upload.Err != nil && minio.ToErrorResponse(upload.Err).Code != minio.NoSuchUpload {
			return nil, upload.Err
		}
		if upload.Err == nil && strings.HasPrefix(upload.Key, below) {
			open = append(open, upload)
		}
		if n++; n >= mostUploads {
			break
		}
	}
	return open, nil
}

// Begin implements checkpoint.Backend.
func (b *Backend) Begin(ctx context.Context, folder string) (checkpoint.Draft, error) {
	// A damaged checkpoint in this place ends here, or its manifest would describe the new one's chunks.
	if err := b.Delete(ctx, path.Join(folder, marker)); err != nil {
		return nil, err
	}
	return &draft{b: b, ctx: ctx, folder: folder, sizes: make(map[string]int64)}, nil
}

// Open implements checkpoint.Backend.
func (b *Backend) Open(ctx context.Context, p string) (io.ReadCloser, error) {
	r := &reader{b: b, ctx: ctx, path: p}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}
