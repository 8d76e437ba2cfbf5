package peer

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// serverMetrics are a Server's figures.
type serverMetrics struct {
	connections prometheus.Gauge
	rejected    prometheus.Counter
	streams     prometheus.Gauge
	panics      prometheus.Counter
}

func newServerMetrics(r prometheus.Registerer) (*serverMetrics, error) {
	m := &serverMetrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "replicanode_peer_connections", Help: "Open connections from other nodes.",
		}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "replicanode_peer_connections_rejected_total", Help: "Connections closed at once because too many were open.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "replicanode_peer_streams", Help: "Open streams from other nodes.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "replicanode_peer_panics_total", Help: "Calls that ended because their handler panicked.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connections, m.rejected, m.streams, m.panics} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register peer metrics: %w", err)
		}
	}
	return m, nil
}
