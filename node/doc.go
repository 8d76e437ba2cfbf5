// Package node puts one replica process together: it opens the data folder, starts the rooms in order, says whether it is ready
// and why not, and stops everything again.
//
// # Use
//
//	n, err := node.New(node.Options{DataDir: "data"})
//	err = n.Start(ctx)    // returns when the node serves, or with the phase that failed
//	...
//	err = n.Stop(ctx)     // drains; also after a failed Start
//
// # Start-up
//
// Start runs named phases in order, each with a deadline of its own (the constants Phase…). Nothing is written before all
// addresses are bound and the folder is known to be ours. Operators can ask /readyz from the third phase on, and are told which
// phase runs, how far it is, and what it waits for. A partition that can't be opened, or fails later, does not stop the others; the
// node then serves what it can, and /readyz names the partition and the reason.
//
// # Shutdown
//
// What was started is stopped in reverse order: clients first (what they sent is finished and answered), then maintenance,
// duplication, peers, replicas, the log's syncer, the long pool and at last the operators' server and the folder's lock. Each
// step is bound by Stop's context, and a step that fails does not keep the next ones from stopping.
//
// # Data folder
//
//	NODE         identity, JSON (Identity)
//	LOCK         held while a process uses the folder
//	ADDRESSES    where the running process listens, JSON (Addresses)
//	partitions/  one folder per partition: its private log and its database
//	dropped/     dropped replicas until their grace time ends
//	checkpoints/ one folder per partition, one below it per decree
//
// A node may have several data folders, each on a disk of its own (Folders). Then NODE holds in each of them the same versioned record of all
// folders and of the partitions that belong there; the newest one holds. ADDRESSES and PAUSED are in all of them, checkpoints in the
// first, and everything else concerns the partitions of its own folder.
//
// # Locks
//
// phases.mu and jobs.mu are leaves.
package node
