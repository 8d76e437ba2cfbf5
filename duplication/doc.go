// Package duplication copies a cluster's mutations to other clusters: in decree order, each exactly once.
//
// # Use
//
// The side that sends is a Source: New with the partitions of this node and the remotes, Start, Stop. The side that receives is
// a Receiver, which is given to the peer server as its duplication handler. A node is often both. Status, LagSample and the
// metrics say how far each remote is behind; Confirmed tells log collection what every remote has; Pause and Resume stop and
// continue one remote.
//
// # How it flows
//
// There is one pipeline per (partition, remote). It asks the remote what it has (Hello, HelloAck) and ships what follows:
// from the partition's in-memory tail, which all remotes share, or else from the private log. The log is read by
// load_private_log jobs on the long pool; a job reads a few batches, hands them over and ends, and another is submitted while the
// pipeline is behind. What waits to be sent and what waits to be acknowledged are both bounded, and when the remote is slow no
// job is submitted: scheduling it would not help. A job reads on a goroutine of its own, so that a disk that hangs holds no slot for
// more than a second. Nothing polls: a pipeline wakes when a decree is applied, an acknowledgement
// arrives, or a job has ended.
//
// Only user mutations made in this cluster are shipped. Other decrees (no-ops, mutations duplicated to here, progress records) are
// passed over: the range (Prev, Last] of a batch covers them. When nothing else follows, a batch without mutations is sent only
// after very many of them, so that the remote's progress, and with it log collection, moves on, but two clusters that duplicate to
// each other do not keep each other busy.
//
// What a cluster received from others, or restored from a checkpoint, it does not ship. A greeting says so: the decree of that
// checkpoint (base) and up to where the data holds what other clusters wrote. A receiver that knows nothing of the source takes
// its stream only when it has all that already, and then lets it begin after its base.
//
// # Invariants
//
//   - What the remote says it has is the truth. Any failure ends the stream, and the next one starts from the remote's answer, so
//     whatever was lost, repeated or reordered is sent again and skipped there by its decree.
//   - Nothing is skipped unless the remote's fail mode is skip: when the remote refuses a mutation for good, or needs a decree that
//     the log does not hold any more, the pipeline stops, says so, and tries again. In mode skip just that is left out, counted
//     and told.
//   - The record of a remote's progress in the source's own partition is written at a bounded rate and may be behind; it only
//     protects the log until the remote has been asked. A remote that was never heard of counts as having nothing.
//   - An absent remote costs attempts with exponential backoff and full jitter, and no memory beyond the bounds. Stop never waits
//     for a remote.
//
// # Locks
//
// pipeline.mu is taken before feed.mu; both are held for short computations only, never while a channel, the network, the log
// or the pool is waited for. Source.mu and Receiver.mu are leaves. inbound.mu is a leaf.
package duplication
