package threadpool

import (
	"fmt"
	"strings"
)

// Priority is a task's level. A higher one is always picked before a lower one, except where a guard against
// starvation (see Guards) says otherwise.
type Priority uint8

// The levels, lowest first.
const (
	// Low is for maintenance: statistics, garbage collection, checkpoints.
	Low Priority = iota
	// Common is for work that users wait for without knowing it, such as shipping the log to a backup.
	Common
	// High is for work that everything else waits for, such as opening a replica.
	High

	levels = 3
)

// String returns "low", "common" or "high".
func (p Priority) String() string {
	switch p {
	case Low:
		return "low"
	case Common:
		return "common"
	case High:
		return "high"
	default:
		return fmt.Sprintf("priority(%d)", uint8(p))
	}
}

// ParsePriority reads "low", "common" or "high", in any case of letters.
func ParsePriority(s string) (Priority, error) {
	switch strings.ToLower(s) {
	case "low":
		return Low, nil
	case "common":
		return Common, nil
	case "high":
		return High, nil
	default:
		return Low, fmt.Errorf("priority %q: must be low, common or high", s)
	}
}

// MarshalText writes the priority as ParsePriority reads it.
func (p Priority) MarshalText() ([]byte, error) {
	if p > High {
		return nil, fmt.Errorf("priority %d is out of range", uint8(p))
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (p *Priority) UnmarshalText(b []byte) error {
	v, err := ParsePriority(string(b))
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// Levels is one number per priority, indexed by Priority.
type Levels [levels]int
