package plog

import (
	"errors"
	"sync"
)

// maxPlaces bounds how many damaged places of one log are told apart; what is found beyond is returned to the reader only.
const maxPlaces = 1024

// damage remembers the places that were found damaged, so that each is counted and told once however often it is read. Its
// lock is a leaf.
type damage struct {
	mu     sync.Mutex
	places map[place]struct{}
}

type place struct {
	segment uint64
	offset  int64
}

// add reports whether the place of e is a new one.
func (d *damage) add(e *ErrCorrupt) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := place{e.Segment, e.Offset}
	if _, known := d.places[at]; known || len(d.places) == maxPlaces {
		return false
	}
	if d.places == nil {
		d.places = map[place]struct{}{}
	}
	d.places[at] = struct{}{}
	return true
}

// found counts and logs the damage in err, if that is what err is, and returns it when its place is a new one.
func (l *Log) found(err error) *ErrCorrupt {
	var e *ErrCorrupt
	if !errors.As(err, &e) || !l.damage.add(e) {
		return nil
	}
	l.metrics.corruption(e.Kind)
	l.log.Error("private log damaged", "partition", l.partition, "segment", e.Segment, "offset", e.Offset,
		"decree", e.Decree, "kind", e.Kind)
	return e
}

// readFailed is what every read of an open log returns its errors through: whoever reads finds the damage for all. mu is not held.
func (l *Log) readFailed(err error) error {
	if e := l.found(err); e != nil && l.opts.Damaged != nil {
		l.opts.Damaged(e)
	}
	return err
}
