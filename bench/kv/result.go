package kv

import (
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"replicanode/bench/load"
	"replicanode/bench/report"
)

// Latency is the distribution of one kind of request, in milliseconds.
type Latency struct {
	Requests uint64  `json:"requests"`
	P50      float64 `json:"p50"`
	P90      float64 `json:"p90"`
	P99      float64 `json:"p99"`
	P999     float64 `json:"p99_9"`
	Max      float64 `json:"max"`
}

// Result is what a run measured.
type Result struct {
	// Name is one of Names.
	Name string `json:"name"`
	// Seconds is how long the load ran, answers to its last requests included.
	Seconds float64 `json:"seconds"`
	// Rate is how many requests succeeded per second.
	Rate float64 `json:"rate"`
	// ReadMs and WriteMs are latencies: from when a request was due (open loop) or sent (closed loop).
	ReadMs  Latency `json:"read_ms"`
	WriteMs Latency `json:"write_ms"`
	// SendDelayMs is how late the generator itself was, included in the latencies; open loop only. When it is large, the
	// machine had no time for the generator and the latencies say more about that than about the server.
	SendDelayMs report.Quantiles `json:"send_delay_ms"`
	// Errors counts requests refused, not sent or not answered; ErrorTexts are the first different ones.
	Errors     uint64           `json:"errors"`
	ErrorTexts []load.ErrorText `json:"error_texts"`

	options Options
}

// Names returns the names of all results.
func Names() []string { return []string{"kv"} }

func newResult(o Options, s load.Stats) Result {
	texts := s.ErrorTexts
	if texts == nil {
		texts = []load.ErrorText{}
	}
	return Result{
		Name:        Names()[0],
		Seconds:     s.Elapsed.Round(time.Millisecond).Seconds(),
		Rate:        s.Rate(),
		ReadMs:      latency(s.Reads),
		WriteMs:     latency(s.Writes),
		SendDelayMs: report.QuantilesOf(s.SendDelay),
		Errors:      s.Errors,
		ErrorTexts:  texts,
		options:     o,
	}
}

func latency(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(q float64) float64 { return report.Micros(h.ValueAtQuantile(q)) }
	return Latency{Requests: uint64(h.TotalCount()), P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: report.Micros(h.Max())}
}

// Write prints the result as a table.
func (r Result) Write(w io.Writer) error {
	loop := fmt.Sprintf("closed loop, %d clients × %d", r.options.Clients, r.options.Pipeline)
	if r.options.QPS > 0 {
		loop = fmt.Sprintf("open loop, %g/s %s, %d connections", r.options.QPS, r.options.Arrivals, r.options.Clients)
	}
	fmt.Fprintf(w, "%s: %.0f requests/s for %.1f s (%s)\n\n", r.options.Addr, r.Rate, r.Seconds, loop)
	t := report.NewTable("", "requests", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms")
	for _, k := range []struct {
		name string
		l    Latency
	}{{"reads", r.ReadMs}, {"writes", r.WriteMs}} {
		if k.l.Requests > 0 {
			t.Row(k.name, k.l.Requests, report.Millis(k.l.P50), report.Millis(k.l.P90), report.Millis(k.l.P99), report.Millis(k.l.P999), report.Millis(k.l.Max))
		}
	}
	if err := t.Write(w); err != nil {
		return err
	}
	if r.options.QPS > 0 {
		fmt.Fprintf(w, "\nthe generator sent at most %s ms late (p99 %s ms)\n", report.Millis(r.SendDelayMs.Max), report.Millis(r.SendDelayMs.P99))
	}
	if r.Errors > 0 {
		fmt.Fprintf(w, "\n%d errors:\n", r.Errors)
		for _, e := range r.ErrorTexts {
			fmt.Fprintf(w, "  %d × %s\n", e.Count, e.Text)
		}
	}
	return nil
}

// Document is the JSON form: config, machine and one result.
func (r Result) Document() report.Document {
	return report.Document{Config: r.options, Machine: report.ThisMachine(""), Results: []Result{r}}
}
