package load

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// MaxLatency is the longest latency a histogram tells apart; longer ones count as this.
const MaxLatency = 10 * time.Minute

const (
	maxErrorTexts  = 8   // different error texts kept
	maxErrorLength = 200 // bytes kept of each
)

// NewHistogram makes an empty histogram of microseconds with three significant digits, up to MaxLatency.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, MaxLatency.Microseconds(), 3)
}

// Record adds d to a histogram made by NewHistogram, n times.
func Record(h *hdrhistogram.Histogram, d time.Duration, n int64) {
	us := min(max(d.Microseconds(), 1), MaxLatency.Microseconds())
	// The value is in range by construction.
	_ = h.RecordValues(us, n)
}

// ErrorText is one kind of error and how often it occurred.
type ErrorText struct {
	Text  string `json:"text"`
	Count uint64 `json:"count"`
}

// Stats is what happened in a window of time. A request belongs to the window in which it was answered.
type Stats struct {
	// Elapsed is the length of the window.
	Elapsed time.Duration
	// Reads and Writes are the latencies of requests that succeeded, in microseconds: from the time the request was due (open
	// loop) or sent (closed loop) until its reply arrived. Unanswered requests are in them with the age they had when they were
	// given up: the least that their latency can have been.
	Reads, Writes *hdrhistogram.Histogram
	// SendDelay is how late the generator itself sent requests, in microseconds; it is part of the latencies. Open loop only.
	SendDelay *hdrhistogram.Histogram
	// Errors counts requests that were refused, could not be sent, or were not answered before their connection ended.
	Errors uint64
	// Unanswered counts those of Errors that were sent and never answered: nobody knows whether they took effect.
	Unanswered uint64
	// ErrorTexts are the first different texts of errors, most frequent first.
	ErrorTexts []ErrorText
}

// Requests is the number of requests that succeeded.
func (s Stats) Requests() uint64 {
	return uint64(s.Reads.TotalCount()+s.Writes.TotalCount()) - s.Unanswered
}

// Rate is the number of requests that succeeded per second.
func (s Stats) Rate() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Requests()) / s.Elapsed.Seconds()
}

func newStats() Stats {
	return Stats{Reads: NewHistogram(), Writes: NewHistogram(), SendDelay: NewHistogram()}
}

// maxRecorders bounds the memory of histograms, about half a mebibyte a recorder.
const maxRecorders = 8

// newRecorders makes the recorders that n connections share.
func newRecorders(n int) []*recorder {
	list := make([]*recorder, min(n, maxRecorders))
	for i := range list {
		list[i] = newRecorder()
	}
	return list
}

// recorder collects what a few goroutines see. The mutex is taken once per batch of replies.
type recorder struct {
	mu    sync.Mutex
	stats Stats
	texts map[string]uint64
}

func newRecorder() *recorder { return &recorder{stats: newStats(), texts: map[string]uint64{}} }

// answered records a reply; the caller holds mu.
func (r *recorder) answered(read bool, latency time.Duration) {
	h := r.stats.Writes
	if read {
		h = r.stats.Reads
	}
	Record(h, latency, 1)
}

// unanswered records requests of one kind that were given up after age; the caller holds mu.
func (r *recorder) unanswered(read bool, age time.Duration) {
	r.answered(read, age)
	r.stats.Unanswered++
	r.failed("not answered", 1)
}

// failed records n requests that failed in the same way; the caller holds mu.
func (r *recorder) failed(text string, n uint64) {
	if n == 0 {
		return
	}
	r.stats.Errors += n
	text = text[:min(len(text), maxErrorLength)]
	if _, known := r.texts[text]; known || len(r.texts) < maxErrorTexts {
		r.texts[text] += n
	}
}

// collect moves what the recorders hold into one Stats and empties them.
func collect(recorders []*recorder, elapsed time.Duration) Stats {
	sum := newStats()
	sum.Elapsed = elapsed
	texts := map[string]uint64{}
	for _, r := range recorders {
		r.mu.Lock()
		sum.Reads.Merge(r.stats.Reads)
		sum.Writes.Merge(r.stats.Writes)
		sum.SendDelay.Merge(r.stats.SendDelay)
		sum.Errors += r.stats.Errors
		sum.Unanswered += r.stats.Unanswered
		for t, n := range r.texts {
			texts[t] += n
		}
		r.stats.Reads.Reset()
		r.stats.Writes.Reset()
		r.stats.SendDelay.Reset()
		r.stats.Errors, r.stats.Unanswered = 0, 0
		clear(r.texts)
		r.mu.Unlock()
	}
	for t, n := range texts {
		sum.ErrorTexts = append(sum.ErrorTexts, ErrorText{Text: t, Count: n})
	}
	slices.SortFunc(sum.ErrorTexts, func(a, b ErrorText) int {
		if a.Count != b.Count {
			return int(int64(b.Count) - int64(a.Count))
		}
		return strings.Compare(a.Text, b.Text)
	})
	sum.ErrorTexts = sum.ErrorTexts[:min(len(sum.ErrorTexts), maxErrorTexts)]
	return sum
}
