package plog

import (
	"sync"
	"sync/atomic"
)

// reachReaders bounds the manifests that are read at the same time to find out whether a journal is an older copy.
const reachReaders = 16

// Reach is how far a journal went: up to where the blocks of a generation go.
type Reach struct {
	Generation uint64 `json:"generation"` // 0: there was none
	End        int64  `json:"end"`        // offset in the file; 0: nothing is known of blocks
}

// highest is the generation of the area that was emptied last.
func (jf *journalFile) highest() (generation uint64) {
	for _, h := range jf.areas {
		generation = max(generation, h.generation)
	}
	return generation
}

// reach returns how far a generation goes in the journal that was read; when no area has it, the highest one there is, about whose blocks it says nothing.
func (jf *journalFile) reach(generation uint64) Reach {
	for i, h := range jf.areas {
		if h.generation == generation {
			return Reach{Generation: generation, End: jf.ends[i]}
		}
	}
	return Reach{Generation: jf.highest()}
}

// outdated returns that the log that m describes knows the journal to have gone further than jf does. A generation that no area has any more, but had once, was
// emptied since.
func (jf *journalFile) outdated(m *manifest) *ErrCorrupt {
	if m.journal == 0 || m.journal != jf.id {
		return nil
	}
	found := jf.reach(m.reach.Generation)
	if found.Generation > m.reach.Generation || found.Generation == m.reach.Generation && found.End >= m.reach.End {
		return nil
	}
	return &ErrCorrupt{Kind: KindJournalStale, File: jf.name, Partition: m.partition, Offset: manifestReach, Found: found, Known: m.reach}
}

// outrun returns that the log that m describes knows a generation of the journal that it has not come to. It is for one that could not be asked when the journal
// was opened.
func (j *Journal) outrun(m *manifest) *ErrCorrupt {
	if m.journal == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if m.reach.Generation <= j.generation {
		return nil
	}
	return &ErrCorrupt{Kind: KindJournalStale, File: j.path(journalName), Partition: m.partition, Offset: manifestReach, Found: Reach{Generation: j.generation}, Known: m.reach}
}

// outdated asks the manifests of all logs whether jf is an older copy of the journal, before anything is changed: what only the newer one held would be
// missing in any of them. A manifest that cannot be read is not asked; what is wrong with it is found when its log is opened.
func (j *Journal) outdated(jf *journalFile) *ErrCorrupt {
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		mu    sync.Mutex
		worst *ErrCorrupt
	)
	for range min(reachReaders, len(j.opts.Partitions)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(j.opts.Partitions) {
					return
				}
				m, err := readManifest(j.opts.FS, j.opts.LogDir(j.opts.Partitions[i]))
				if err != nil {
					continue
				}
				if e := jf.outdated(m); e != nil {
					mu.Lock()
					if worst == nil || worst.Partition > e.Partition {
						worst = e
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return worst
}
