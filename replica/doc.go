// Package replica hosts the partitions of a node: it replicates their logs with Raft, persists them through plog,
// and applies them to one badger database per partition.
//
//	h, err := replica.NewHost(replica.Options{Dir: dir, ClusterID: id, Syncer: syncer})
//	err = h.Start(ctx)
//	err = h.Route(key).Propose(command)         // writes, and reads in order with them
//	err = h.Route(key).View(ctx, func(v *replica.View) error { ... })
//	err = h.Stop(ctx)
//
// # How a write goes
//
// A partition's goroutine takes queued commands, runs their Execute in order and gathers what they write into one
// mutation (package mutation) with one timestamp. Commands are evaluated against the database at the applied decree
// and, above it, an overlay of everything that is proposed and not yet applied; so the next mutation is evaluated
// while the previous one is being synced, read-modify-write commands log absolute values, and a hot key is not limited
// to one operation per sync. The host's one goroutine proposes mutations to Raft, gives entries and hard states to
// plog, and hands what is committed back to the partition, which writes all of it to badger in one batch, each decree
// at its own version, and only then finishes the commands. A command that wrote nothing finishes when everything that
// it could have read is applied.
//
// When the leader or its term changes, the overlay is dropped: commands in flight finish with ErrResultUnknown, those
// still queued with a NotLeaderError. A panic in Execute undoes that command alone. A full disk refuses
// writes with a NoSpaceError until there is space, and one that is too slow with ErrBacklog; commands that were already
// proposed then finish with ErrResultUnknown, because they may still take effect. A failed sync, a corrupt log or a failing
// database stops the partition (Err); the others go on.
//
// # Opening
//
// Options.Runner bounds how many partitions are opened at once. Opening includes the replay of what the log knows to be committed;
// what may be committed beyond that is applied once there is a leader. The group is handed to the host's goroutine after it.
//
// # A full disk
//
// Writes are refused at three marks. Below Options.ReserveBytes of free space, asked for at most ten times a second, clients'
// writes are; below the half of it those of other clusters too. And whatever is free, before commands are evaluated and before a
// batch is applied, room for it is reserved: badger writes to sparse memory-mapped files, and one whose blocks cannot be had would
// kill the process. So the files behind its memtables are created and given blocks ahead of what is written (memFiles), its tables
// get theirs before they are mapped (package mapped), and its list of tables has spare room. What was committed and has no room
// waits and is applied when there is some.
//
// # Invariants
//
//   - A command finishes without an error only after its entry is durable, committed and applied.
//   - What an entry does depends on the records below its decree and on the entry alone. The leader's evaluation, a
//     follower and a replay go through the same code (mutator) and write the same records.
//   - A database read at version D is the state at decree D, as long as D is pinned or not below the durable decree.
//   - The durable decree is the highest version in badger's tables. Memtables become tables in the order in which they
//     were written, a table is synced before it is listed, and every batch ends with a record that no compaction
//     drops, so everything up to that decree survives, except that the decree itself may have been split over two
//     memtables. Replay therefore starts at the durable decree, and nothing that is visible below it is dropped
//     (SetDiscardTs). badger's memtable files are not synced and are removed before opening.
//   - Nothing is ever put into badger's value log: it is not synced before the tables that point into it, and its
//     garbage collection deletes files whose values were moved to a memtable only. Long strings are cut into chunks.
//   - Timestamps: a local mutation's is greater than every one applied in the partition, those inside duplicated
//     batches included.
//
// # Which write wins
//
// Every record carries the timestamp and the cluster id of the write that made it; deletes leave such a record too.
// Between clusters the greater (timestamp, cluster id) wins, per key, and per field of a hash. A string, or a delete of
// the key, kills the fields with smaller stamps; a field with a greater stamp than the string replaces the string.
// Expiring is a delete at the time of expiry. Deletes and expired keys are remembered for Options.TombstoneTTL, counted
// from the log entry that wrote them (or from the time of expiry, if that is later): what arrives later than that from another
// cluster may bring a key back. Whether something is still remembered is decided by the timestamp of the log entry that asks, never by
// the clock on the wall, so that replays, other replicas and copies made later come to the same.
//
// # Format of the database
//
// Integers are little endian, but big endian in keys. hash48 is the upper 48 bits of XXH64.
//
//	key                                                                      value
//	'k' hash48(key) key                                                      the key's record
//	'f' hash48(key) len(key)(2) key generation(12) hash48(field)(6) field    a field of a hash
//	'f' hash48(key) len(key)(2) key generation(12) number(4)                 a chunk of a long string
//	's' 'a'                                                                  1(1) term(8) timestamp(8): the last batch
//	's' 'b'                                                                  decree(8) of the checkpoint it was restored from
//	's' 'c'                                                                  Raft's ConfState, protobuf
//	's' 'd' cluster(8) partition(4)                                          progress of a remote source, decree(8)
//	's' 'r' name                                                             confirmed by a remote, decree(8)
//
// A value under 'k' or 'f' begins with its kind, which is badger's user meta byte too:
//
//	1 string           timestamp(8) cluster(8) expire-at ms(8) data
//	2 hash             timestamp(8) cluster(8) expire-at ms(8) timestamp(8) and cluster(8) of the last expire
//	                   generation(12) fields(8) writer(8): the only cluster that wrote fields, or 0
//	3 deleted          timestamp(8) cluster(8)
//	4 field            timestamp(8) cluster(8) data
//	5 deleted field    timestamp(8) cluster(8)
//	6 long string      timestamp(8) cluster(8) expire-at ms(8) generation(12) length(8)
//	7 chunk            data, 768 KiB but for the last one
//	8 hash, no fields  as 2; the key is absent
//
// The timestamp under 'k' is that of the last write or delete of the key as a whole; 0 for a hash that was never
// preceded by one. A generation is the timestamp of the log entry that began the life of a hash or long string,
// followed by the number of lives which that entry had begun (4): overwriting or deleting such a key leaves its
// children behind, unreachable, until Partition.Sweep removes them. Keys are ordered by hash so that a scan's cursor is a position and
// needs no state. Deletes, and whatever expires, carry badger's expiry, in seconds since 1970: 2^40, which keeps badger from
// acting on it, plus the time at which the record is forgotten. From then on log entries do not see it, and Partition.Sweep
// removes it. Kinds 3, 5 and 8 are forgotten TombstoneTTL after their timestamp or the log entry's, whichever is later, 1, 2, 6
// and 7 so long after their own expiry.
//
// # Membership
//
// A new partition's log begins with one Raft membership entry per voter, the same on all voters. Applying a membership
// entry writes the resulting ConfState at its decree, so a restart knows the members at the decree from which it
// replays. Entries have Raft's type in plog.Entry.Type; only those of type 0 that are not empty are mutations.
//
// # Locks
//
// Partition.views, durability.looking, durability.mu, pins.mu, and then Partition.mu, subscriptions.mu and Host.mu, which are leaves.
package replica
