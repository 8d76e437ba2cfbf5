package gc

import (
	"fmt"
	"strconv"
)

// Level is how short a disk is of space.
type Level uint8

const (
	// LevelOK: nothing to do.
	LevelOK Level = iota
	// LevelLow: garbage collection overtakes.
	LevelLow
	// LevelCritical: writes are refused until space is freed.
	LevelCritical
)

var levelNames = [...]string{"ok", "low", "critical"}

func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "level" + strconv.Itoa(int(l))
}

// MarshalText makes the name appear in JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the name.
func (l *Level) UnmarshalText(b []byte) error {
	for i, name := range levelNames {
		if name == string(b) {
			*l = Level(i)
			return nil
		}
	}
	return fmt.Errorf("unknown disk level %q", b)
}

// Usage is what a file system says of itself. Bytes and inodes that only the
// superuser may use do not count as free. Totals of 0 mean unknown.
type Usage struct {
	TotalBytes  uint64 `json:"total_bytes"`
	FreeBytes   uint64 `json:"free_bytes"`
	TotalInodes uint64 `json:"total_inodes"`
	FreeInodes  uint64 `json:"free_inodes"`
}

// Watermarks say at which free space a disk is low or critical.
type Watermarks struct {
	// LowBytes: below it the disk is low. Default 10 % of the disk, at most 20 GiB.
	LowBytes uint64
	// CriticalBytes: below it writes are refused. Default 3 % of the disk, at most
	// 4 GiB and at most a third of LowBytes.
	CriticalBytes uint64
	// LowInodes and CriticalInodes are the same for inodes. Defaults 2 % and 0.5 %.
	LowInodes, CriticalInodes uint64
	// Recover is the factor by which free space must exceed a mark before the level
	// falls again; at least 1, default 1.2.
	Recover float64
}

// Validate says what is wrong with the marks.
func (w *Watermarks) Validate() error {
	switch {
	case w.Recover != 0 && !(w.Recover >= 1 && w.Recover <= 100):
		return fmt.Errorf("watermark recovery factor %v is not within 1 and 100", w.Recover)
	case w.LowBytes != 0 && w.CriticalBytes > w.LowBytes:
		return fmt.Errorf("critical watermark of %d bytes is above the low one of %d", w.CriticalBytes, w.LowBytes)
	case w.LowInodes != 0 && w.CriticalInodes > w.LowInodes:
		return fmt.Errorf("critical watermark of %d inodes is above the low one of %d", w.CriticalInodes, w.LowInodes)
	}
	return nil
}

// For returns the marks with defaults for a disk filled in.
func (w Watermarks) For(u Usage) Watermarks {
	if w.Recover == 0 {
		w.Recover = 1.2
	}
	mark := func(set *uint64, total uint64, perMille, most uint64) {
		if *set == 0 {
			*set = min(total/1000*perMille, most)
		}
	}
	const unlimited = ^uint64(0)
	lowGiven, lowInodesGiven := w.LowBytes, w.LowInodes
	mark(&w.LowBytes, u.TotalBytes, 100, 20<<30)
	mark(&w.LowInodes, u.TotalInodes, 20, unlimited)
	mark(&w.CriticalBytes, u.TotalBytes, 30, min(4<<30, w.LowBytes/3))
	mark(&w.CriticalInodes, u.TotalInodes, 5, w.LowInodes/3)
	if lowGiven == 0 {
		w.LowBytes = max(w.LowBytes, w.CriticalBytes)
	}
	if lowInodesGiven == 0 {
		w.LowInodes = max(w.LowInodes, w.CriticalInodes)
	}
	return w
}

// Next is the level after the level cur at the usage u. A level rises as soon as
// free space is below its mark, and falls only when it is above the mark times Recover.
func (w Watermarks) Next(cur Level, u Usage) Level {
	w = w.For(u)
	return max(w.next(cur, u.FreeBytes, w.LowBytes, w.CriticalBytes),
		w.next(cur, u.FreeInodes, w.LowInodes, w.CriticalInodes))
}

func (w Watermarks) next(cur Level, free, low, critical uint64) Level {
	above := func(mark uint64) bool { return float64(free) >= float64(mark)*w.Recover }
	switch {
	case free < critical, cur == LevelCritical && !above(critical):
		return LevelCritical
	case free < low, cur != LevelOK && !above(low):
		return LevelLow
	}
	return LevelOK
}

// CriticalError refuses writes because a disk is critically full. Reads,
// duplication and garbage collection go on, and writes resume by themselves.
type CriticalError struct {
	Path      string // folder on the disk
	FreeBytes uint64
	// ResumeBytes is the free space at which writes resume.
	ResumeBytes uint64
	// FreeInodes and ResumeInodes are set instead when inodes are what is short.
	FreeInodes, ResumeInodes uint64
}

func (e *CriticalError) Error() string {
	if e.ResumeInodes > 0 {
		return fmt.Sprintf("disk of %s is critically short of inodes: %d free, writes resume at %d", e.Path, e.FreeInodes, e.ResumeInodes)
	}
	return fmt.Sprintf("disk of %s is critically full: %d bytes free, writes resume at %d", e.Path, e.FreeBytes, e.ResumeBytes)
}

// refusal is the error for a disk at the critical level.
func (w Watermarks) refusal(path string, u Usage) *CriticalError {
	w = w.For(u)
	bytes, inodes := uint64(float64(w.CriticalBytes)*w.Recover), uint64(float64(w.CriticalInodes)*w.Recover)
	if u.FreeBytes >= bytes && u.FreeInodes < inodes {
		return &CriticalError{Path: path, FreeBytes: u.FreeBytes, FreeInodes: u.FreeInodes, ResumeInodes: inodes}
	}
	return &CriticalError{Path: path, FreeBytes: u.FreeBytes, ResumeBytes: bytes}
}
