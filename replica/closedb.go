package replica

import (
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"replicanode/replica/mapped"
)

// closePoll is how often a database that is being closed is asked whether it waits for room.
const closePoll = 20 * time.Millisecond

// LeftOpenError says that a database could not be closed: something that it had begun waits for room on its disk, or fails again and again. It is
// left to itself, and nothing is lost by that: the next start of the process replays the log, as after a crash. Until then the folder must not be opened by anybody else.
type LeftOpenError struct {
	// Dir is the database's folder, Why what it waits for.
	Dir, Why string
	// Closed is closed when it could be closed after all.
	Closed <-chan struct{}
}

func (e *LeftOpenError) Error() string {
	return fmt.Sprintf("the database %s stays open until the process ends: %s; the next start replays the log, nothing acknowledged is lost", e.Dir, e.Why)
}

// closeDB closes the database. What waits for room is not waited for: who could make some has been stopped before.
func closeDB(db *badger.DB, mem *memFiles) error {
	var err error // of the goroutine until closed
	closed := make(chan struct{})
	log, _ := db.Opts().Logger.(*badgerLogger)
	log.flushFailure() // those before do not count
	go func() {
		defer close(closed)
		err = db.Close()
		mem.close()
	}()
	poll := time.NewTicker(closePoll)
	defer poll.Stop()
	for {
		select {
		case <-closed:
			return err
		case <-poll.C:
		}
		why := log.flushFailure()
		if mapped.Waiting(mem.dir) {
			why = "a compaction waits for room on the disk"
		}
		if why != "" {
			return &LeftOpenError{Dir: mem.dir, Why: why, Closed: closed}
		}
	}
}
