// Package crash checks that a primary and its backup keep every acknowledged write, exactly once, through sudden deaths:
// `replicanode bench crash`.
//
// A round loads the primary, kills a node at a random moment, starts it again on the same folder and ports, and compares what
// both nodes hold with what was acknowledged. Who dies is drawn anew in each round: the primary, the backup while the load goes
// on, both, or the primary is told to stop (SIGTERM) under load; or the backup's folder is lost too, and a new backup, restored
// from checkpoints of the primary, takes its place while the load goes on. Otherwise the folders live through all rounds, so
// recovery runs on the remains of earlier recoveries.
//
// # What is compared
//
// Every client owns keys that nobody else writes, of five kinds: counters (INCR), fields of hashes (HINCRBY), values (SET),
// values that come and go (SET and DEL), and pairs that are set together (MSET of two keys of one partition). The state of a key
// is the number of operations it has seen, and all of its content follows from that number. A key has at most one operation on
// its way. So at any time the server may show the state after n operations, the acknowledged ones, or n+1 when one was on its
// way as the connection broke, and nothing else: less is a lost write, more or anything else a write that took effect twice or
// out of order. A reply that contradicts the state (an INCR that does not return n+1) is a violation at once.
//
// Beside them each partition has hot keys, which all clients write at once in bursts, so that many operations on one key meet in
// one mutation: counters, fields, strings that grow by APPEND, and keys that one MSET sets together (the first of them twice),
// within a partition and across all of them. A counter may show anything from the acknowledged additions to those that were sent,
// and no sum may be told twice; what was appended is there once, in each client's order, and what was acknowledged is there; keys
// set together show the same, and nothing that was overwritten.
//
// The primary is compared after its restart; what it shows settles the open operations. Then the backup has CatchUpTimeout to
// show exactly the same, and must show it as soon as the primary says that there is nothing left to ship: every key as the
// primary showed it, and the same digest of everything in each partition.
//
// What this leaves out: SIGKILL ends a process, not the machine, so what it had written survives in the page cache. Loss of power
// is what the tests of package plog are for.
//
// A violation ends the run with a *ViolationError, and the folders stay for whoever looks for the reason.
package crash
