package duplication

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"replicanode/peer/peerpb"
)

// State says what a pipeline is doing.
type State uint8

// The states of a pipeline.
const (
	// StateStopped: not started yet, or stopped.
	StateStopped State = iota
	// StateNotLeader: another node leads the partition, and ships it.
	StateNotLeader
	// StatePaused: told to pause.
	StatePaused
	// StateConnecting: opening a stream.
	StateConnecting
	// StateShipping: the stream is open.
	StateShipping
	// StateBackoff: waiting before the next attempt.
	StateBackoff
	// StateRefused: the remote refuses for a reason that does not go away by itself; it is asked again now and then.
	StateRefused
	// StateLogCollected: the remote needs decrees that are not in the log any more; it must be given a checkpoint.
	StateLogCollected
)

var stateNames = [...]string{"stopped", "not_leader", "paused", "connecting", "shipping", "backoff", "refused", "log_collected"}

// String is the state's name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(text []byte) error {
	i, err := indexOf(stateNames[:], string(text))
	*s = State(i)
	return err
}

// LimitedBy says what a pipeline waits for.
type LimitedBy uint8

// What may limit a pipeline.
const (
	// LimitedByNothing: there is nothing to ship, or the pipeline is not meant to.
	LimitedByNothing LimitedBy = iota
	// LimitedByScheduling: a job that reads the log waits for its turn on the long pool.
	LimitedByScheduling
	// LimitedByDisk: such a job is reading.
	LimitedByDisk
	// LimitedByRemote: the remote is away, or has not confirmed what it was sent.
	LimitedByRemote
)

var limitedByNames = [...]string{"none", "scheduling", "disk", "remote"}

// String is the limit's name.
func (l LimitedBy) String() string {
	if int(l) < len(limitedByNames) {
		return limitedByNames[l]
	}
	return fmt.Sprintf("limited_by(%d)", uint8(l))
}

// MarshalText implements encoding.TextMarshaler.
func (l LimitedBy) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *LimitedBy) UnmarshalText(text []byte) error {
	i, err := indexOf(limitedByNames[:], string(text))
	*l = LimitedBy(i)
	return err
}

func indexOf(names []string, name string) (int, error) {
	for i, n := range names {
		if n == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("duplication: unknown name %q", name)
}

// Lag is how far a remote is behind. All fields are 0 when it has everything that is to be shipped.
type Lag struct {
	// Seconds since the oldest mutation that the remote has not confirmed was committed.
	Seconds float64 `json:"seconds"`
	// Decrees from the confirmed one to the newest that is to be shipped.
	Decrees uint64 `json:"decrees"`
	// Bytes of mutations not confirmed; an estimate for those from before this process started.
	Bytes uint64 `json:"bytes"`
}

// PipelineStatus describes one pipeline.
type PipelineStatus struct {
	Partition uint32    `json:"partition"`
	Remote    string    `json:"remote"`
	Address   string    `json:"address,omitempty"`
	State     State     `json:"state"`
	Since     time.Time `json:"since"`
	LimitedBy LimitedBy `json:"limited_by"`
	// Applied is the partition's applied decree, Sent the last one sent, Confirmed the last one that the remote has; Known is
	// false when the remote was never heard of.
	Applied   uint64 `json:"applied"`
	Sent      uint64 `json:"sent"`
	Confirmed uint64 `json:"confirmed"`
	Known     bool   `json:"known"`
	Lag       Lag    `json:"lag"`
	// InFlightBatches and InFlightBytes are sent and not confirmed; ReadAheadBytes are read from the log and not sent.
	InFlightBatches int `json:"in_flight_batches"`
	InFlightBytes   int `json:"in_flight_bytes"`
	ReadAheadBytes  int `json:"read_ahead_bytes"`
	// ShippedMutations and ShippedBytes count what was sent since the start, repetitions included; LoadedBytes what of it was
	// read from the log; Connects the streams opened, Failures those that failed or could not be opened.
	ShippedMutations uint64 `json:"shipped_mutations"`
	ShippedBytes     uint64 `json:"shipped_bytes"`
	ShippedBatches   uint64 `json:"shipped_batches"`
	LoadedBytes      uint64 `json:"loaded_bytes"`
	Connects         uint64 `json:"connects"`
	Failures         uint64 `json:"failures"`
	// FailMode says whether mutations that the remote will never have are skipped; SkippedDecrees and SkippedRanges count those that
	// were since the start, and Skipped are the newest 16 ranges.
	FailMode       FailMode       `json:"fail_mode"`
	SkippedDecrees uint64         `json:"skipped_decrees"`
	SkippedRanges  uint64         `json:"skipped_ranges"`
	Skipped        []SkippedRange `json:"skipped,omitempty"`
	// LastError is why the last stream or job failed, at LastErrorAt; the next attempt is at RetryAt.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	RetryAt     time.Time `json:"retry_at,omitzero"`
}

var (
	// ErrUnknownRemote is wrapped by Pause and Resume for a name that is not configured.
	ErrUnknownRemote = errors.New("unknown remote")

	errNotOpen      = errors.New("the partition is not open")
	errPaused       = errors.New("paused")
	errNotLeader    = errors.New("another node leads the partition")
	errNoHello      = errors.New("the remote did not answer the greeting in time")
	errNoProgress   = errors.New("the remote confirmed nothing in time")
	errSameCluster  = errors.New("the remote is this very cluster")
	errAhead        = errors.New("the remote has decrees that this cluster does not have: it was filled by another history")
	errProtocol     = errors.New("the remote broke the protocol")
	errLogCollected = errors.New("the remote needs decrees that are not in the log any more; restore a checkpoint there")
	errStreamEnded  = errors.New("the remote ended the stream")
)

// refusalError is a remote's typed refusal.
type refusalError struct {
	reason peerpb.RefusalReason
	detail string
	leader string
}

func (e *refusalError) Error() string {
	switch e.reason {
	case peerpb.RefusalReason_REFUSAL_REASON_PARTITIONS_DIFFER:
		return "refused, the numbers of partitions differ: " + e.detail
	case peerpb.RefusalReason_REFUSAL_REASON_SAME_CLUSTER:
		return "refused, same cluster: " + e.detail
	case peerpb.RefusalReason_REFUSAL_REASON_UNACCEPTABLE:
		return "refused, the remote cannot take this: " + e.detail
	case peerpb.RefusalReason_REFUSAL_REASON_BASELINE:
		return "refused, the remote lacks what this cluster holds and does not ship (restore a checkpoint of this cluster there, " +
			"or let it catch up with the other cluster first): " + e.detail
	}
	return fmt.Sprintf("refused (%s): %s", reasonLabel(e.reason), e.detail)
}

// reasonLabel is a reason's name without the prefix that protobuf wants.
func reasonLabel(reason peerpb.RefusalReason) string {
	return strings.ToLower(strings.TrimPrefix(reason.String(), "REFUSAL_REASON_"))
}

// permanent says whether waiting alone will not make the remote accept.
func permanent(err error) bool {
	var refusal *refusalError
	if errors.As(err, &refusal) {
		switch refusal.reason {
		case peerpb.RefusalReason_REFUSAL_REASON_PARTITIONS_DIFFER, peerpb.RefusalReason_REFUSAL_REASON_SAME_CLUSTER,
			peerpb.RefusalReason_REFUSAL_REASON_UNACCEPTABLE, peerpb.RefusalReason_REFUSAL_REASON_BASELINE,
			peerpb.RefusalReason_REFUSAL_REASON_CLOCK:
			return true
		}
		return false
	}
	return errors.Is(err, errSameCluster) || errors.Is(err, errAhead)
}
