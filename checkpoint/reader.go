package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Reader yields the state at a checkpoint's decree in key order: the newest
// entry of each key over the whole chain, deletes left out. Everything it
// yields has been checked; that nothing is missing is certain at io.EOF.
type Reader struct {
	layers []*layer // newest first
	dec    *zstd.Decoder
	slices *slicer
}

// layer is one checkpoint of a chain, read chunk after chunk.
type layer struct {
	chunks chunkSource
	open   bool
	entry  Entry
	done   bool
	used   bool // entry was yielded or hidden
}

// Open returns a Reader of the checkpoint and its ancestors. turn may be nil.
// The caller must Close it.
func (s *Store) Open(ctx context.Context, turn Turn, partition uint32, decree uint64) (*Reader, error) {
	chain, err := s.chain(ctx, partition, decree)
	if err != nil {
		return nil, err
	}
	r := &Reader{slices: newSlicer(ctx, turn, time.Millisecond)}
	if r.dec, err = newDecoder(); err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	for i := len(chain) - 1; i >= 0; i-- {
		r.layers = append(r.layers, &layer{
			chunks: chunkSource{store: s, m: chain[i], index: -1, dec: r.dec, slices: r.slices}, used: true})
	}
	return r, nil
}

// Manifest is that of the checkpoint itself.
func (r *Reader) Manifest() *Manifest { return r.layers[0].chunks.m }

// Next returns the next entry, valid until the call after; io.EOF at the end.
func (r *Reader) Next() (*Entry, error) {
	for {
		best, err := r.smallest()
		if err != nil {
			return nil, err
		}
		if best == nil {
			return nil, io.EOF
		}
		for _, l := range r.layers {
			if !l.done && bytes.Equal(l.entry.Key, best.Key) {
				l.used = true
			}
		}
		if best.Kind == Put {
			return best, nil
		}
	}
}

// smallest refills the layers and returns the entry with the least key, the
// newest layer's among equals; nil at the end.
func (r *Reader) smallest() (*Entry, error) {
	var best *Entry
	for _, l := range r.layers {
		if l.used && !l.done {
			if err := l.advance(); err != nil {
				return nil, err
			}
		}
		if !l.done && (best == nil || bytes.Compare(l.entry.Key, best.Key) < 0) {
			best = &l.entry
		}
	}
	return best, nil
}

func (l *layer) advance() error {
	for {
		if l.open {
			err := l.chunks.next(&l.entry)
			if err == nil {
				l.used = false
				return l.chunks.slices.step()
			}
			if err != io.EOF {
				return err
			}
			l.open = false
			if err := l.chunks.close(); err != nil {
				return fmt.Errorf("close chunk: %w", err)
			}
		}
		if l.chunks.index+1 >= len(l.chunks.m.Chunks) {
			l.done = true
			return nil
		}
		l.chunks.index++
		if err := l.chunks.open(); err != nil {
			return err
		}
		l.open = true
	}
}

// Close releases the files.
func (r *Reader) Close() error {
	var errs []error
	for _, l := range r.layers {
		errs = append(errs, l.chunks.close())
	}
	r.dec.Close()
	return errors.Join(errs...)
}
