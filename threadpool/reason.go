package threadpool

import (
	"fmt"
	"slices"
	"time"
)

// Reason is why a task was picked.
type Reason uint8

// The reasons.
const (
	// ReasonNone: nothing was picked.
	ReasonNone Reason = iota
	// ReasonAlone: nothing else was in any queue.
	ReasonAlone
	// ReasonPriority: no other runnable task had an effective level as high.
	ReasonPriority
	// ReasonArrival: it arrived first among those of the highest effective level.
	ReasonArrival
	// ReasonShare: Low was owed its share of slot time.
	ReasonShare
)

var reasonNames = [...]string{"none", "alone", "priority", "arrival", "share"}

// String returns a stable name.
func (r Reason) String() string { return name(reasonNames[:], int(r)) }

// MarshalText implements encoding.TextMarshaler.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what MarshalText wrote.
func (r *Reason) UnmarshalText(text []byte) error {
	i, err := named(reasonNames[:], "reason", string(text))
	*r = Reason(i)
	return err
}

// Cause is the rule that gave a task its effective level.
type Cause uint8

// The causes.
const (
	// CauseSubmitted: the level it was submitted with.
	CauseSubmitted Cause = iota
	// CauseMoved: the level was changed at run time, for the code or for the task.
	CauseMoved
	// CauseAged: it waited for MaxWait or more.
	CauseAged
	// CauseInherited: a more urgent task with the same key waits behind it.
	CauseInherited
)

var causeNames = [...]string{"submitted", "moved", "aged", "inherited"}

// String returns a stable name.
func (c Cause) String() string { return name(causeNames[:], int(c)) }

// MarshalText implements encoding.TextMarshaler.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what MarshalText wrote.
func (c *Cause) UnmarshalText(text []byte) error {
	i, err := named(causeNames[:], "cause", string(text))
	*c = Cause(i)
	return err
}

// Blocker is what keeps a waiting task from running.
type Blocker uint8

// The blockers.
const (
	// BlockedNot: it can run, and is picked next.
	BlockedNot Blocker = iota
	// BlockedSlot: all slots are taken, or others go first.
	BlockedSlot
	// BlockedCode: its code's MaxRunning or MaxStarted.
	BlockedCode
	// BlockedLevel: its level's MaxRunning.
	BlockedLevel
	// BlockedReserve: the slots left are kept for higher levels.
	BlockedReserve
	// BlockedParked: its level has MaxParked parked tasks.
	BlockedParked
	// BlockedKey: another task of its key is ahead.
	BlockedKey
	// BlockedSleep: it sleeps.
	BlockedSleep
	// BlockedAwait: it awaits a channel.
	BlockedAwait
	// BlockedBudget: its level's I/O budget is spent.
	BlockedBudget
	// BlockedRetry: it failed and waits for its next attempt.
	BlockedRetry
	// BlockedPaused: the pool is not started, or has been stopped.
	BlockedPaused
)

var blockerNames = [...]string{"not", "slot", "code_limit", "level_limit", "reserve", "parked_limit", "key", "sleep", "await", "io_budget", "retry", "paused"}

// String returns a stable name.
func (b Blocker) String() string { return name(blockerNames[:], int(b)) }

// MarshalText implements encoding.TextMarshaler.
func (b Blocker) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what MarshalText wrote.
func (b *Blocker) UnmarshalText(text []byte) error {
	i, err := named(blockerNames[:], "blocker", string(text))
	*b = Blocker(i)
	return err
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}

// named is the inverse of name; of names that no version knew so far it makes an error.
func named(names []string, kind, text string) (int, error) {
	if i := slices.Index(names, text); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("threadpool: unknown %s %q", kind, text)
}

// Decision is one pick.
type Decision struct {
	// At is when.
	At time.Time `json:"at"`
	// ID, Code and Key are the task's.
	ID   uint64 `json:"id"`
	Code string `json:"code"`
	Key  string `json:"key,omitempty"`
	// Priority is its level, Effective the one it was picked at, Cause the rule that made the difference.
	Priority  Priority `json:"priority"`
	Effective Priority `json:"effective"`
	Cause     Cause    `json:"cause"`
	// Reason is why it was picked before the others, of which Others were in the queues.
	Reason Reason `json:"reason"`
	Others int    `json:"others"`
	// Resumed tells a parked task's return from a start.
	Resumed bool `json:"resumed"`
	// Waited is how long it had waited for this.
	Waited time.Duration `json:"waited_ns"`
}

// decision is the form a Decision is kept in.
type decision struct {
	at, waited int64
	seq        uint64
	code       *code
	others     int32
	base, eff  Priority
	cause      Cause
	reason     Reason
	resumed    bool
	keyed      bool
}

// ring keeps the last decisions.
type ring struct {
	all []decision
	// keys are the names of the keys of those that have one.
	keys []string
	next int
	full bool
}

func (r *ring) init(n int) { r.all, r.keys = make([]decision, n), make([]string, n) }

// decide notes the pick of ch.
func (c *core) decide(ch choice, now int64) {
	e := ch.e
	r := &c.decisions
	d := &r.all[r.next]
	if d.keyed = e.key != nil; d.keyed {
		r.keys[r.next] = e.key.name
	}
	if r.next++; r.next == len(r.all) {
		r.next, r.full = 0, true
	}
	d.at, d.waited, d.seq, d.code = now, now-e.since, e.seq, e.code
	d.others = int32(c.waiting - 1)
	d.base, d.eff, d.reason, d.resumed = e.base, ch.eff, ch.reason, e.state == stateReady
	d.cause = e.causeOf(ch.eff)
	if d.cause == CauseAged {
		e.code.counts.aged++
	}
}

// causeOf is the rule that gave e the effective level eff.
func (e *entry) causeOf(eff Priority) Cause {
	switch {
	case eff > e.level():
		return CauseAged
	case e.inherited > e.base:
		return CauseInherited
	case e.moved:
		return CauseMoved
	default:
		return CauseSubmitted
	}
}

// eventKind is a step in a task's life, for transcripts.
type eventKind uint8

const (
	eventSubmit eventKind = iota
	eventStart
	eventPark
	eventReady
	eventResume
	eventFinish
	eventRetry
	eventDrop
	eventAge
)

var eventNames = [...]string{"submit", "start", "park", "ready", "resume", "finish", "retry", "drop", "age"}

func (k eventKind) String() string { return name(eventNames[:], int(k)) }

// event is what core.observe is told, under the pool's lock.
type event struct {
	kind   eventKind
	e      *entry
	at     int64
	reason Reason
	eff    Priority
}

func (c *core) note(kind eventKind, e *entry, now int64) {
	if c.observe != nil {
		c.observe(event{kind: kind, e: e, at: now})
	}
}
