package redis

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/server/resp"
)

// metrics are a server's counters. Children are resolved once: the hot paths only add.
type metrics struct {
	panics   prometheus.Counter
	unknown  prometheus.Counter
	errors   prometheus.Counter
	protocol [16]prometheus.Counter
	refused  map[refusal]prometheus.Counter
	reads    *histogram
	writes   *histogram

	// What INFO shows too.
	connectionCount, rejected, executed, received, sent atomic.Int64
}

// refusal says why a client or a command was turned away.
type refusal string

const (
	refusedClients  refusal = "max_clients"  // a connection beyond MaxClients
	refusedAuth     refusal = "auth"         // a wrong password
	refusedGate     refusal = "write_gate"   // a write while WriteGate refuses them
	refusedBusy     refusal = "busy"         // a command for which there was no room within BusyTimeout
	refusedReply    refusal = "reply_size"   // a reply beyond MaxReplyBytes
	refusedBuffers  refusal = "buffers"      // a connection for whose buffers there was no memory
	refusedSlow     refusal = "slow_reader"  // a client that did not take its replies
	refusedIdle     refusal = "timeout"      // a client that was idle too long, or too slow with a request
	refusedSecurity refusal = "not_a_client" // something that speaks HTTP
	refusedLoading  refusal = "loading"      // a command that wants the store before it is there
)

var refusals = []refusal{
	refusedClients, refusedAuth, refusedGate, refusedBusy, refusedReply, refusedBuffers, refusedSlow, refusedIdle, refusedSecurity, refusedLoading,
}

// collectors make metrics of the server and keep all of them for registration.
type collectors []prometheus.Collector

func (all *collectors) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "replicanode", Subsystem: "server", Name: name, Help: help})
	*all = append(*all, c)
	return c
}

func (all *collectors) vec(name, help, label string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "replicanode", Subsystem: "server", Name: name, Help: help}, []string{label})
	*all = append(*all, v)
	return v
}

// total is a counter that is kept elsewhere.
func (all *collectors) total(name, help string, v *atomic.Int64) {
	*all = append(*all, prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "replicanode", Subsystem: "server", Name: name, Help: help},
		func() float64 { return float64(v.Load()) }))
}

func (all *collectors) gauge(name, help string, f func() float64) {
	*all = append(*all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "replicanode", Subsystem: "server", Name: name, Help: help}, f))
}

func (all collectors) register(r prometheus.Registerer) error {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register the server's metrics: %w", err)
		}
	}
	return nil
}

func newMetrics(s *Server, r prometheus.Registerer) (*metrics, error) {
	var all collectors
	m := &metrics{
		panics:  all.counter("panics_total", "Panics in a connection's code; each ended its connection."),
		errors:  all.counter("error_replies_total", "Commands answered with an error that was found while they were parsed or dispatched."),
		refused: map[refusal]prometheus.Counter{},
		reads:   newHistogram("read"),
		writes:  newHistogram("write"),
	}
	commands := all.vec("commands_total", "Commands by name.", "command")
	for i := range s.table.list {
		cmd := &s.table.list[i]
		cmd.calls = commands.WithLabelValues(cmd.name)
	}
	m.unknown = commands.WithLabelValues("unknown")
	protocol := all.vec("protocol_errors_total", "Connections closed because of a malformed or too great request, by kind.", "kind")
	for _, kind := range resp.ErrorKinds() {
		m.protocol[kind] = protocol.WithLabelValues(kind.String())
	}
	refused := all.vec("refused_total", "Clients and commands turned away, by reason.", "reason")
	for _, reason := range refusals {
		m.refused[reason] = refused.WithLabelValues(string(reason))
	}
	all.total("connections_accepted_total", "Client connections accepted.", &m.connectionCount)
	all.total("received_bytes_total", "Bytes received from clients.", &m.received)
	all.total("sent_bytes_total", "Bytes sent to clients.", &m.sent)
	all.gauge("connections", "Client connections open now.", func() float64 { return float64(s.clients()) })
	all.gauge("connections_limit", "Greatest number of client connections.", func() float64 { return float64(s.opts.MaxClients) })
	all.gauge("buffer_bytes", "Memory of connections' buffers beyond their base.", func() float64 { return float64(s.budget.Used()) })
	all.gauge("buffer_limit_bytes", "Greatest memory of connections' buffers.", func() float64 { return float64(s.opts.MaxBufferBytes) })
	all.gauge("write_p99_seconds", "99th percentile of the time writes took in the last 10 seconds.", func() float64 { return s.WriteP99().Seconds() })
	if r == nil {
		return m, nil
	}
	return m, append(all, m.reads, m.writes).register(r)
}

// The upper bounds of the exported histogram are powers of two of 16 µs, up to about 8 s.
const (
	histogramBase    = 16 * time.Microsecond
	histogramBuckets = 20
)

// histogram counts many commands of one latency at the cost of one, which Prometheus' own cannot.
type histogram struct {
	desc   *prometheus.Desc
	counts [histogramBuckets + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

func newHistogram(kind string) *histogram {
	return &histogram{desc: prometheus.NewDesc("replicanode_server_command_seconds",
		"Time from the arrival of a command to its reply; commands sent together are counted with the time of all of them.", nil, prometheus.Labels{"kind": kind})}
}

func (h *histogram) record(d time.Duration, n uint32) {
	i, top := 0, histogramBase
	for i < histogramBuckets && d > top {
		i++
		top *= 2
	}
	h.counts[i].Add(uint64(n))
	h.sum.Add(int64(d) * int64(n))
}

// Describe implements prometheus.Collector.
func (h *histogram) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements prometheus.Collector.
func (h *histogram) Collect(ch chan<- prometheus.Metric) {
	buckets := make(map[float64]uint64, histogramBuckets)
	var total uint64
	top := histogramBase
	for i := range histogramBuckets {
		total += h.counts[i].Load()
		buckets[top.Seconds()] = total
		top *= 2
	}
	total += h.counts[histogramBuckets].Load()
	ch <- prometheus.MustNewConstHistogram(h.desc, total, time.Duration(h.sum.Load()).Seconds(), buckets)
}
