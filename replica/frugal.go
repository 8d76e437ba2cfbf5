package replica

import "sync"

// frugality makes the private logs of a disk give up the files they keep for reuse while there is a reason to: without those, the database
// may lack the room to write out what would let the logs shrink.
type frugality struct {
	mu      sync.Mutex // above the locks of partitions and logs
	reasons map[any]bool
	members []*Partition
}

func newFrugality() *frugality { return &frugality{reasons: make(map[any]bool)} }

// set adds a reason, or takes it back.
func (f *frugality) set(reason any, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.reasons) > 0
	if on {
		f.reasons[reason] = true
	} else {
		delete(f.reasons, reason)
	}
	if now := len(f.reasons) > 0; now != before {
		for _, p := range f.members {
			f.tell(p)
		}
	}
}

// opened tells a log that has just been opened.
func (f *frugality) opened(p *Partition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(p)
}

// tell passes on to a partition's log what holds. mu is held.
func (f *frugality) tell(p *Partition) {
	if log := p.Log(); log != nil {
		log.SetFrugal(len(f.reasons) > 0)
	}
}

// SetFrugal makes the private logs on a disk (an index of Options.Disks) keep no files for reuse, as they do by themselves while writes
// are refused for lack of space; false takes that back.
func (h *Host) SetFrugal(disk int, on bool) { h.disks[disk].space.frugal.set(h, on) }
