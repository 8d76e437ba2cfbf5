package gc

import (
	"cmp"
	"fmt"
	"time"
)

// PacerOptions say how fast files are deleted.
type PacerOptions struct {
	// Baseline is the rate when there is little to delete and much space, in bytes
	// per second; default 32 MiB/s.
	Baseline float64
	// BacklogTime is the time in which the backlog alone would be deleted; default 5 min.
	BacklogTime time.Duration
	// ShortageTime is the time in which missing space would be freed; default 10 s.
	ShortageTime time.Duration
	// StepBytes is how much of a file is deleted at once; larger files are shrunk in
	// such steps, because unlinking a large file stalls the file system. Default 16 MiB.
	StepBytes int64
}

// EnsureDefaults fills in the defaults.
func (o *PacerOptions) EnsureDefaults() {
	o.Baseline = cmp.Or(o.Baseline, 32<<20)
	o.BacklogTime = cmp.Or(o.BacklogTime, 5*time.Minute)
	o.ShortageTime = cmp.Or(o.ShortageTime, 10*time.Second)
	o.StepBytes = cmp.Or(o.StepBytes, 16<<20)
}

// Validate says what is wrong with the options.
func (o *PacerOptions) Validate() error {
	if !(o.Baseline > 0) || o.BacklogTime <= 0 || o.ShortageTime <= 0 || o.StepBytes <= 0 {
		return fmt.Errorf("pacer options %+v: all must be greater than 0", *o)
	}
	return nil
}

// Rate is the rate of deletion in bytes per second: baseline + backlog /
// BacklogTime + shortage / ShortageTime. backlog is what is still to be deleted,
// shortage what is missing to the low watermark, both in bytes.
func (o *PacerOptions) Rate(backlog, shortage int64) float64 {
	return o.Baseline + float64(max(0, backlog))/o.BacklogTime.Seconds() +
		float64(max(0, shortage))/o.ShortageTime.Seconds()
}

// Pause is how long to wait after having deleted n bytes.
func (o *PacerOptions) Pause(n, backlog, shortage int64) time.Duration {
	return time.Duration(float64(max(0, n)) / o.Rate(backlog, shortage) * float64(time.Second))
}
