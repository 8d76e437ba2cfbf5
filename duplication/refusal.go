package duplication

import (
	"context"
	"errors"
	"fmt"

	"replicanode/peer/peerpb"
	"replicanode/replica"
	"replicanode/replica/mutation"
)

// refusal is why a receiver takes no more of a stream.
type refusal struct {
	reason    peerpb.RefusalReason
	detail    string
	leader    string
	confirmed uint64
}

func refuse(reason peerpb.RefusalReason, format string, args ...any) *refusal {
	return &refusal{reason: reason, detail: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (f *refusal) Error() string { return reasonLabel(f.reason) + ": " + f.detail }

func (f *refusal) response() *peerpb.DuplicateResponse {
	message := &peerpb.Refusal{Reason: f.reason, Detail: f.detail, LeaderAddress: f.leader, Confirmed: f.confirmed}
	return &peerpb.DuplicateResponse{Message: &peerpb.DuplicateResponse_Refusal{Refusal: message}}
}

func (r *Receiver) notLeader(leader uint64) *refusal {
	f := refuse(peerpb.RefusalReason_REFUSAL_REASON_NOT_LEADER, "node %d leads the partition", leader)
	if leader == 0 {
		f.detail = "the partition has no leader now"
	} else {
		f.leader = r.o.LeaderAddress(leader)
	}
	return f
}

// explain turns an error of a partition into a refusal.
func (r *Receiver) explain(err error) *refusal {
	var (
		refused   *refusal
		notLeader *replica.NotLeaderError
		gap       *replica.GapError
		tooLarge  *replica.TooLargeError
		skewed    *replica.ClockSkewError
	)
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &notLeader):
		return r.notLeader(notLeader.Leader)
	case errors.As(err, &gap):
		f := refuse(peerpb.RefusalReason_REFUSAL_REASON_GAP, "%v", err)
		f.confirmed = gap.Have
		return f
	case errors.As(err, &skewed):
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_CLOCK, "%v", err)
	case errors.As(err, &tooLarge), errors.Is(err, mutation.ErrFormat):
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_UNACCEPTABLE, "%v", err)
	case errors.Is(err, replica.ErrBusy):
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_BUSY, "%v", err)
	case errors.Is(err, context.Canceled):
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_UNAVAILABLE, "%v", errReceiverStopped)
	}
	return refuse(peerpb.RefusalReason_REFUSAL_REASON_UNAVAILABLE, "%v", err)
}
