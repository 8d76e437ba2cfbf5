package node

import (
	"sync"

	"replicanode/checkpoint"
)

// maxJobs bounds how many jobs asked for over the API are remembered; the oldest ended one is forgotten first.
const maxJobs = 4096

// JobStatus is one job that was asked for over the API.
type JobStatus struct {
	ID    uint64 `json:"id"`
	Done  bool   `json:"done"`
	Error string `json:"error,omitempty"`
	// Pruned is what a removal of checkpoints has removed so far.
	Pruned *checkpoint.Pruned `json:"pruned,omitempty"`
}

// job is something that was begun and ends.
type job interface {
	Done() <-chan struct{}
	Err() error
}

// jobs remembers what was asked for over the API, so that the asker can look how it went. The zero value is empty.
type jobs struct {
	mu    sync.Mutex
	next  uint64
	byID  map[uint64]job
	order []uint64
}

// add remembers job and returns its number.
func (j *jobs) add(begun job) JobStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.byID == nil {
		j.byID = map[uint64]job{}
	}
	j.next++
	j.byID[j.next] = begun
	j.order = append(j.order, j.next)
	if len(j.order) > maxJobs {
		j.forgetOldestEnded()
	}
	return status(j.next, begun)
}

func (j *jobs) forgetOldestEnded() {
	for i, id := range j.order {
		if status(id, j.byID[id]).Done {
			delete(j.byID, id)
			j.order = append(j.order[:i], j.order[i+1:]...)
			return
		}
	}
}

// find returns the job with number id.
func (j *jobs) find(id uint64) (job, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	found, ok := j.byID[id]
	return found, ok
}

func status(id uint64, j job) JobStatus {
	s := JobStatus{ID: id}
	select {
	case <-j.Done():
		s.Done = true
		if err := j.Err(); err != nil {
			s.Error = oneLine(err)
		}
	default:
	}
	if run, ok := j.(interface{ Pruned() checkpoint.Pruned }); ok {
		pruned := run.Pruned()
		s.Pruned = &pruned
	}
	return s
}
