package load

import (
	"cmp"
	"slices"
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

// NewStats are those of an empty window.
func NewStats() Stats {
	return Stats{Reads: NewHistogram(), Writes: NewHistogram(), SendDelay: NewHistogram()}
}

// Add makes s the stats of its window and the other's, the one after the other.
func (s *Stats) Add(other Stats) {
	s.Elapsed += other.Elapsed
	s.merge(other)
}

// merge adds what happened in the same window.
func (s *Stats) merge(other Stats) {
	s.Reads.Merge(other.Reads)
	s.Writes.Merge(other.Writes)
	s.SendDelay.Merge(other.SendDelay)
	s.Errors += other.Errors
	s.Unanswered += other.Unanswered
	for _, e := range other.ErrorTexts {
		s.tell(e)
	}
	slices.SortStableFunc(s.ErrorTexts, func(a, b ErrorText) int { return cmp.Compare(b.Count, a.Count) })
}

// tell counts errors of one text; of too many different ones the first are kept.
func (s *Stats) tell(e ErrorText) {
	i := slices.IndexFunc(s.ErrorTexts, func(have ErrorText) bool { return have.Text == e.Text })
	switch {
	case i >= 0:
		s.ErrorTexts[i].Count += e.Count
	case len(s.ErrorTexts) < maxErrorTexts:
		s.ErrorTexts = append(s.ErrorTexts, e)
	}
}

// reset makes s that of an empty window, in the memory it has.
func (s *Stats) reset() {
	s.Reads.Reset()
	s.Writes.Reset()
	s.SendDelay.Reset()
	*s = Stats{Reads: s.Reads, Writes: s.Writes, SendDelay: s.SendDelay, ErrorTexts: s.ErrorTexts[:0]}
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
}

func newRecorder() *recorder { return &recorder{stats: NewStats()} }

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
	r.failed("not answered")
}

// failed records a request that failed; the caller holds mu.
func (r *recorder) failed(text string) {
	r.stats.Errors++
	r.stats.tell(ErrorText{Text: text[:min(len(text), maxErrorLength)], Count: 1})
}

// collect moves what the recorders hold into one Stats and empties them.
func collect(recorders []*recorder, elapsed time.Duration) Stats {
	sum := NewStats()
	sum.Elapsed = elapsed
	for _, r := range recorders {
		r.mu.Lock()
		sum.merge(r.stats)
		r.stats.reset()
		r.mu.Unlock()
	}
	return sum
}
