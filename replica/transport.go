package replica

import (
	"context"

	"go.etcd.io/raft/v3/raftpb"
)

// Message is a Raft message of one partition, on its way between nodes.
type Message struct {
	Partition uint32
	// Raft must not be changed by anyone: it shares memory with the sender's log.
	Raft *raftpb.Message
}

// Transport carries messages to other nodes. Raft tolerates loss, delay, repetition and reordering.
type Transport interface {
	// Send takes the messages on (the slice is the caller's again on return) or drops them. It must not block.
	Send(msgs []Message)
}

// Runner runs the opening of partitions and bounds how many run at once.
type Runner interface {
	// Run calls f once, maybe later, and returns when it has returned, with its error or with why it was not called.
	// f must get ctx or a context derived from it. name is for people.
	Run(ctx context.Context, name string, f func(ctx context.Context) error) error
}

// directRunner opens everything at once.
type directRunner struct{}

func (directRunner) Run(ctx context.Context, _ string, f func(context.Context) error) error {
	return f(ctx)
}
