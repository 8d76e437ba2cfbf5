package checkpoint

import (
	"context"
	"io"
	"time"
)

// Backend is where a Store keeps its files. Paths are relative to it, with
// slashes, such as "0003/00000000000000004711/000001.chunk". A file or folder that
// does not exist is fs.ErrNotExist. Methods may be called concurrently; for one
// folder of a partition, at most one of Begin, Remove and Clean at a time.
type Backend interface {
	// Path shows a path to people, without secrets; that of "" is the whole.
	Path(path string) string
	// List returns the names of what is directly in a folder: none when it does not exist.
	List(ctx context.Context, folder string) ([]string, error)
	// Sizes returns the sizes of the files directly in a checkpoint's folder;
	// fs.ErrNotExist when there is no such checkpoint.
	Sizes(ctx context.Context, folder string) (map[string]int64, error)
	// Open reads a file from its beginning.
	Open(ctx context.Context, path string) (io.ReadCloser, error)
	// Begin begins a checkpoint in folder, of which nobody sees anything before Publish.
	Begin(ctx context.Context, folder string) (Draft, error)
	// Remove makes a checkpoint invisible, durably, and then removes its files.
	Remove(ctx context.Context, folder string, each Each) error
	// Clean removes what interrupted drafts and removals left in a partition's folder.
	Clean(ctx context.Context, home string, each Each) error
	// Put makes a file appear, durably and whole or not at all.
	Put(ctx context.Context, path string, data []byte) error
	// Delete removes a file, durably. One that does not exist is no error.
	Delete(ctx context.Context, path string) error
}

// Troubled is a Backend that knows whether its place answers.
type Troubled interface {
	// Trouble says since when and why no request has been answered; a nil error
	// while they are, and while none is made.
	Trouble() (since time.Time, err error)
}

// Each makes one call to the disk or the net. bytes is what the call frees there,
// by which it is paced; 0 when that is next to nothing.
type Each func(bytes int64, call func() error) error

// Draft is a checkpoint being written. Its methods are called one at a time.
type Draft interface {
	// Create begins a file, after the one before was finished.
	Create(name string) (DraftFile, error)
	// Open reads a finished file back; nil, nil says that the backend has verified
	// the file's bytes against a checksum already when it stored them.
	Open(name string) (io.ReadCloser, error)
	// Publish adds the manifest and makes the checkpoint visible, durably and whole
	// or not at all. A checkpoint in its place, which is damaged, goes.
	Publish(manifest []byte) error
	// Discard removes what it can; Clean does the rest. It is called after an error,
	// and returns soon.
	Discard()
}

// DraftFile is a file of a Draft. Write may block, and may change what it is given.
type DraftFile interface {
	io.Writer
	// Finish makes the file durable.
	Finish() error
	// Close gives the file up, unless it was finished.
	Close() error
}
