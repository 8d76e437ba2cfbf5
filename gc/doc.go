// Package gc decides what may be deleted, deletes it at a pace nobody notices,
// and watches the disks.
//
// # Parts
//
//   - [Logs] (code gc_logs) releases each private log's prefix that nobody needs
//     any more, and says which rule holds the rest.
//   - [Replicas] (code gc_replicas) removes the folders of dropped replicas after
//     a grace time; [Dropped] puts them there, lists them and brings them back.
//   - [Values] (code gc_values) collects the databases' value logs and sweeps
//     what no key refers to, which looks at every key: ValuesOptions.Paced spreads it over time.
//   - [DiskStat] (code disk_stat) measures space, inodes, latency, and the bytes
//     per partition. From it come each disk's [Level] and its gate for writes.
//
// A node with several data folders has one [DiskStat] for all, and one of the others
// for each. Each is started and stopped on its own, runs on the long pool in slices, and
// has a Status that can be shown as JSON.
//
// # Invariants
//
//   - A decree is released only when it is at or below the durable decree and
//     every hold on the partition; a hold that is not known counts as 0.
//   - Deletion follows [PacerOptions]: baseline + backlog / 5 min + shortage / 10 s.
//     That of old checkpoints, which package checkpoint does, is given the same rate.
//     A private log's segments are bounded in size and unlinked one at a time, at that rate; those that are used again cost nothing.
//   - A statistic never deletes, and deleting never delays a statistic: disk_stat
//     and gc_replicas share no lock that is held during I/O.
//   - A disk that does not answer holds no slot: every call of disk_stat to a disk
//     is made by that disk's own goroutine and awaited with a timeout. Each disk has
//     its own tasks, so none waits for another one's, and what else they do with a disk
//     that hangs holds no slot for more than a second.
//   - A dropped folder can be brought back until its removal begins, which is
//     marked by a rename, so that half a folder can never be brought back.
//
// No lock of this package is held while another package is called.
package gc
