package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"replicanode/plog"
	"replicanode/replica/mapped"
)

// PartitionDir is the folder of a partition below Options.Dir. Its sub-folders are LogDir and DBDir.
func PartitionDir(id uint32) string { return fmt.Sprintf("%04d", id) }

const (
	// LogDir is the folder of the private log below a partition's folder.
	LogDir = "plog"
	// DBDir is the folder of the database below a partition's folder.
	DBDir = "db"
)

// dir is the partition's folder.
func (p *Partition) dir() string { return filepath.Join(p.disk.Dir, PartitionDir(p.id)) }

// open opens the database and the log and hands the group to the host's goroutine.
func (p *Partition) open(ctx context.Context) error {
	p.mu.Lock()
	if p.phase != phaseWaiting {
		p.mu.Unlock()
		return ErrStopped
	}
	p.phase, p.refuse = phaseOpening, nil
	p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.disk.Err; err != nil {
		return err
	}
	dir := p.dir()
	if err := p.checkPresent(dir); err != nil {
		return err
	}
	db, mem, err := openDB(filepath.Join(dir, DBDir), p.o, memTableBytes(p.o.MemTableBytes, p.id), p.log)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	log, err := p.openLog(filepath.Join(dir, LogDir))
	if err != nil {
		return errors.Join(err, closeDB(db, mem))
	}
	if err := p.recover(ctx, dir, db, mem, log); err != nil {
		p.forgetFiles()
		return errors.Join(fmt.Errorf("recover: %w", err), closeDB(db, mem), log.Close())
	}
	return nil
}

// recover brings the database up to what the log knows to be committed, and hands the group to the host's goroutine.
func (p *Partition) recover(ctx context.Context, dir string, db *badger.DB, mem *memFiles, log *plog.Log) error {
	r, err := p.recoverState(db, log)
	if err != nil {
		return err
	}
	p.durable.mu.Lock()
	p.durable.db, p.durable.dir, p.durable.decree, p.durable.closed = db, filepath.Join(dir, DBDir), r.durable, false
	p.durable.mu.Unlock()
	p.mu.Lock()
	p.plog, p.db, p.mem, p.group, p.confirmed = log, db, mem, r.group, r.confirmed
	p.mu.Unlock()
	p.disk.space.frugal.opened(p)
	if !r.fresh {
		err = r.group.replay(ctx, r.ev)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.phase == phaseFailed { // a table of what was replayed could not be made durable, or a reader has met damage
		defer p.mu.Unlock()
		return p.err
	}
	p.phase = phaseOpen
	p.announce()
	p.mu.Unlock()
	p.log.Info("partition opened", "durable", r.durable, "applied", p.Applied(), "log_to", log.LastIndex())
	go p.run(r.ev)
	p.h.post(hostEvent{kind: hostOpened, g: r.group})
	return nil
}

// forgetFiles undoes what recover has noted, before the files are closed.
func (p *Partition) forgetFiles() {
	p.disk.space.frugal.set(p, false)
	p.durable.end()
	p.views.Lock()
	defer p.views.Unlock()
	p.durable.mu.Lock()
	p.durable.db, p.durable.discard = nil, 0
	p.durable.mu.Unlock()
	p.mu.Lock()
	p.plog, p.db, p.mem, p.group = nil, nil, nil, nil
	p.mu.Unlock()
}

// checkPresent looks for what a partition that has served must have, before anything is made. A database that is gone is noticed by
// the log, which replays all of it or has released what it would need.
func (p *Partition) checkPresent(dir string) error {
	if !slices.Contains(p.o.MustExist, p.id) {
		return nil
	}
	path := filepath.Join(dir, LogDir)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return &MissingError{Path: path}
	} else if err != nil {
		return fmt.Errorf("look for partition %d: %w", p.id, err)
	}
	return nil
}

// reopen lets a partition that could not be opened be opened again; false when it is being stopped.
func (p *Partition) reopen(reason error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != phaseOpening || p.draining {
		return false
	}
	p.phase, p.refuse = phaseWaiting, reason
	return true
}

// recovered is what opening finds and makes of it.
type recovered struct {
	durable   uint64
	conf      *raftpb.ConfState
	confirmed map[string]uint64
	group     *group
	ev        *evaluator
	// fresh: the log is new.
	fresh bool
}

// openLog opens the private log. Its error names the folder.
func (p *Partition) openLog(dir string) (*plog.Log, error) {
	o := p.o.Log
	o.Syncer = p.disk.Syncer
	if p.disk.FS != nil {
		o.FS = p.disk.FS
	}
	if o.Logger == nil {
		o.Logger = p.o.Logger
	}
	o.Damaged = p.damaged
	log, err := plog.Open(dir, p.id, o)
	return log, withAdvice(err)
}

// withAdvice says what can be done about a log that is damaged, or lacks its journal.
func withAdvice(err error) error {
	var damage *plog.ErrCorrupt
	switch {
	case !errors.As(err, &damage):
		return err
	case damage.Kind == plog.KindJournalMissing:
		return fmt.Errorf("%w; put back the journal that belongs to the folder, or the folder that belongs here, restore a checkpoint, drop the replica, or start once with --accept-journal-loss", err)
	default:
		return fmt.Errorf("%w; put the file back as it was, restore a checkpoint, or drop the replica", err)
	}
}

// damaged ends the partition when somebody who reads its log, a duplication for example, has met damage: what was acknowledged is
// not there any more.
func (p *Partition) damaged(e *plog.ErrCorrupt) {
	p.fail(withAdvice(fmt.Errorf("private log is damaged: %w", e)))
}

// recoverState finds out where to go on, and prepares the goroutine's state and the Raft group for it.
func (p *Partition) recoverState(db *badger.DB, log *plog.Log) (*recovered, error) {
	r := &recovered{durable: maxTableVersion(db), conf: new(raftpb.ConfState), confirmed: make(map[string]uint64)}
	base := log.FirstIndex() - 1
	if base > r.durable || log.LastIndex()+1 < r.durable {
		return nil, fmt.Errorf("log holds decrees %d to %d, but the database is durable up to %d",
			base+1, log.LastIndex(), r.durable)
	}
	// The durable decree may be there in part only, so it is replayed, unless the log has been cut right behind a
	// complete state (a restored checkpoint).
	start := base
	if r.durable > 0 {
		start = max(base, r.durable-1)
	}
	if err := p.readSystem(db, start, r); err != nil {
		return nil, err
	}
	p.applied.Store(start)
	p.replay.begin(start, log.LastIndex(), p.o.Clock())
	var err error
	r.fresh = log.LastIndex() == 0 && start == 0
	if r.group, err = p.newGroup(log, start, r.conf); err != nil {
		return nil, err
	}
	r.ev = &evaluator{epoch: 1}
	r.ev.state = state{
		db: db, overlay: newOverlay(), applied: start,
		tombstoneSeconds: uint64(p.o.TombstoneTTL.Seconds()),
	}
	r.ev.tx.limits, r.ev.tx.mu.s = p.o, &r.ev.state
	return r, nil
}

// readSystem reads the partition's own records.
func (p *Partition) readSystem(db *badger.DB, start uint64, r *recovered) error {
	if start == 0 {
		return nil
	}
	txn := db.NewTransactionAt(start, false)
	defer txn.Discard()
	rec, err := readRecord(txn, confKey)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(rec, r.conf); err != nil {
		return fmt.Errorf("%w: membership: %w", errState, err)
	}
	// That of the start may be of an earlier batch, and lack what the decrees up to the start have.
	newest := db.NewTransactionAt(max(start, r.durable), false)
	defer newest.Discard()
	if rec, err = readRecord(newest, appliedKey); err != nil {
		return err
	}
	if rec != nil {
		applied, err := parseAppliedRecord(rec)
		if err != nil {
			return err
		}
		p.newest = applied.timestamp
		p.clock.Observe(applied.timestamp)
	}
	return readConfirmed(txn, r.confirmed)
}

func readConfirmed(txn *badger.Txn, confirmed map[string]uint64) error {
	prefix := appendConfirmedKey(nil, "")
	o := badger.DefaultIteratorOptions
	o.Prefix = prefix
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		err := it.Item().Value(func(rec []byte) error {
			decree, err := parseNumber(rec)
			confirmed[string(it.Item().Key()[len(prefix):])] = decree
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Partition) newGroup(log *plog.Log, start uint64, conf *raftpb.ConfState) (*group, error) {
	fresh := log.LastIndex() == 0 && start == 0
	if fresh && slices.Contains(p.o.MustExist, p.id) {
		return nil, &MissingError{Path: p.dir()}
	}
	if !fresh && len(conf.GetVoters()) == 0 && start == log.LastIndex() {
		// A restored state without a membership begins with the configured one.
		conf = &raftpb.ConfState{Voters: slices.Sorted(slices.Values(p.o.Voters))}
	}
	g := &group{h: p.h, p: p, applied: start, store: &storage{log: log, conf: conf, applied: start}}
	hs, _, err := g.store.InitialState()
	if err != nil {
		return nil, err
	}
	g.hs = plog.HardState{Term: hs.GetTerm(), Vote: hs.GetVote(), Commit: hs.GetCommit()}
	g.term = g.hs.Term
	rn, err := newRawNode(&raft.Config{
		ID: p.o.NodeID, ElectionTick: p.o.ElectionTicks, HeartbeatTick: p.o.HeartbeatTicks,
		Storage: g.store, Applied: start, AsyncStorageWrites: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: uint64(p.o.ApplyBytes), MaxInflightMsgs: 256,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		DisableProposalForwarding: true, Logger: raftLogger{p.log},
	})
	if err != nil {
		return nil, g.store.reason(err)
	}
	g.rn = rn
	if len(conf.GetVoters()) > 0 {
		g.setConf(conf)
	}
	if !fresh {
		return g, nil
	}
	voters := slices.Sorted(slices.Values(p.o.Voters))
	peers := make([]raft.Peer, len(voters))
	for i, id := range voters {
		peers[i].ID = id
	}
	if err := rn.Bootstrap(peers); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	return g, nil
}

// newRawNode makes Raft's panics errors.
func newRawNode(c *raft.Config) (rn *raft.RawNode, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("raft: %v", v)
		}
	}()
	return raft.NewRawNode(c)
}

// memTableBytes is the size of a partition's memtable: up to an eighth below the limit, and a different one for each partition. Keys are
// spread evenly, so with one size for all the memtables of a node would all be full, and be written to the disk, at the same moment.
func memTableBytes(limit int64, id uint32) int64 {
	const golden = 0x9e3779b9 // neighbours come far apart, and any number of partitions is spread evenly
	return limit - int64(float64(id*golden)/(1<<32)*float64(limit/8))
}

// openDB opens a partition's database at what its synced tables hold.
func openDB(dir string, o *Options, memTable int64, log *slog.Logger) (*badger.DB, *memFiles, error) {
	mapped.Install()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	// The files behind the memtables are not synced, so after a crash they may hold any part of what the log replays
	// anyway. Without them, recovery is the same after every kind of crash.
	stale, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return nil, nil, err
	}
	for _, name := range stale {
		if err := os.Remove(name); err != nil {
			return nil, nil, err
		}
	}
	bo := badger.DefaultOptions(dir).
		WithLogger(&badgerLogger{log: log}).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(o.IndexCacheBytes).
		WithMemTableSize(memTable).
		WithNumMemtables(maxUnflushed).
		WithNumCompactors(2).
		WithValueThreshold(1 << 20).
		WithValueLogFileSize(4 << 20).
		WithCompactL0OnClose(false)
	if err := removeEmptyValueLogs(dir); err != nil {
		return nil, nil, err
	}
	db, err := badger.OpenManaged(bo)
	if err != nil {
		return nil, nil, err
	}
	mem, err := openMemFiles(dir, memTable)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, mem, nil
}

// close closes the database and the log; the goroutines that use them have ended.
func (p *Partition) close() error {
	p.durable.end()
	p.views.Lock()
	defer p.views.Unlock()
	p.durable.mu.Lock()
	p.durable.db = nil
	p.durable.mu.Unlock()
	p.mu.Lock()
	db, mem, log := p.db, p.mem, p.plog
	p.db, p.plog = nil, nil
	if p.phase != phaseFailed {
		p.phase = phaseStopped
	}
	p.announce()
	p.mu.Unlock()
	if db == nil {
		return nil
	}
	return errors.Join(closeDB(db, mem), log.Close())
}

// removeEmptyValueLogs removes value logs without a byte: a sudden death between the making of such a file and its first growth
// leaves one, which holds nothing and which badger refuses to open.
func removeEmptyValueLogs(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
	if err != nil {
		return fmt.Errorf("look for value logs: %w", err)
	}
	for _, name := range names {
		if st, err := os.Stat(name); err != nil {
			return fmt.Errorf("look at value log: %w", err)
		} else if st.Size() > 0 {
			continue
		}
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("remove empty value log: %w", err)
		}
	}
	return nil
}
