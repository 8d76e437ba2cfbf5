package dup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"replicanode/bench/process"
	"replicanode/bench/report"
	"replicanode/server/admin"
	"replicanode/tasks"
)

// node is the admin API of one node, as far as the experiment uses it. The answers' types name only what is read of them.
type node struct {
	client  *admin.Client
	metrics string // URL
	remote  string
}

func newNode(addr, remote string) *node {
	return &node{client: admin.NewClient(addr, ""), metrics: "http://" + addr + "/metrics", remote: remote}
}

func (n *node) close() { n.client.Close() }

// lag asks how far the remote is behind.
func (n *node) lag(ctx context.Context) (lagSample, error) {
	answer, err := admin.Get[struct {
		Lag struct {
			Seconds float64 `json:"seconds"`
			Decrees uint64  `json:"decrees"`
			Bytes   uint64  `json:"bytes"`
		} `json:"lag"`
	}](ctx, n.client, "/v1/duplications/"+n.remote+"/lag")
	return lagSample{worst: seconds(answer.Lag.Seconds), decrees: answer.Lag.Decrees, bytes: answer.Lag.Bytes}, err
}

// shipping says whether every partition has an open stream to the remote.
func (n *node) shipping(ctx context.Context) (bool, error) {
	answer, err := admin.Get[struct {
		Pipelines []struct {
			State string `json:"state"`
		} `json:"pipelines"`
	}](ctx, n.client, "/v1/duplications")
	for _, p := range answer.Pipelines {
		if p.State != "shipping" {
			return false, err
		}
	}
	return err == nil && len(answer.Pipelines) > 0, err
}

// maintain is one cycle of the storm: a checkpoint of the partition, waited for, and one run of everything else.
func (n *node) maintain(ctx context.Context, partition int) error {
	if err := n.checkpoint(ctx, partition); err != nil {
		return err
	}
	for _, code := range maintenanceCodes() {
		if code == tasks.Checkpoint {
			continue
		}
		if _, err := admin.Post[struct{}](ctx, n.client, "/v1/tasks/"+string(code)+"/run", nil); err != nil {
			return err
		}
	}
	return nil
}

// job is something that was asked for.
type job struct {
	ID    uint64 `json:"id"`
	Done  bool   `json:"done"`
	Error string `json:"error"`
}

func (n *node) checkpoint(ctx context.Context, partition int) error {
	answer, err := admin.Post[struct {
		Jobs []job `json:"jobs"`
	}](ctx, n.client, "/v1/checkpoints", map[string]int{"partition": partition})
	if err != nil {
		return err
	}
	if len(answer.Jobs) != 1 {
		return fmt.Errorf("checkpoint of partition %d: %d jobs were begun instead of one", partition, len(answer.Jobs))
	}
	j := answer.Jobs[0]
	for !j.Done {
		if j, err = admin.Get[job](ctx, n.client, "/v1/jobs/"+strconv.FormatUint(j.ID, 10)+"?wait=10s"); err != nil {
			return err
		}
	}
	if j.Error != "" {
		return fmt.Errorf("checkpoint of partition %d: %s", partition, j.Error)
	}
	return nil
}

// controller is what the controller of priorities sees and has done.
type controller struct {
	Signals   tasks.Signals            `json:"signals"`
	Decisions []tasks.AdaptiveDecision `json:"decisions"`
}

func (n *node) controller(ctx context.Context) (controller, error) {
	answer, err := admin.Get[struct {
		Adaptive controller `json:"adaptive"`
	}](ctx, n.client, "/v1/tasks/explain")
	return answer.Adaptive, err
}

// waits asks how long tasks have waited for their turn, by code, since the node started.
func (n *node) waits(ctx context.Context) (map[string]report.Quantiles, error) {
	answer, err := admin.Get[struct {
		Stats []struct {
			Code string `json:"code"`
			Wait struct {
				P50 time.Duration `json:"p50_ns"`
				P99 time.Duration `json:"p99_ns"`
				Max time.Duration `json:"max_ns"`
			} `json:"wait"`
		} `json:"stats"`
	}](ctx, n.client, "/v1/tasks")
	if err != nil {
		return nil, err
	}
	waits := map[string]report.Quantiles{}
	for _, s := range answer.Stats {
		waits[s.Code] = report.Quantiles{P50: report.DurationMillis(s.Wait.P50), P99: report.DurationMillis(s.Wait.P99), Max: report.DurationMillis(s.Wait.Max)}
	}
	return waits, nil
}

// collectedMetrics are the counters of what garbage collection freed, with the bytes that one of each stands for.
func collectedMetrics() map[string]float64 {
	return map[string]float64{"replicanode_plog_released_segments_total": segmentBytes, "replicanode_gc_replica_deleted_bytes_total": 1}
}

// collected asks how many bytes garbage collection has freed since the node started, the segments of private logs that are used
// again included.
func (n *node) collected(ctx context.Context) (uint64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.metrics, nil)
	if err != nil {
		return 0, fmt.Errorf("make request for metrics: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("read metrics: %s", resp.Status)
	}
	return sumMetrics(resp.Body, collectedMetrics())
}

// sumMetrics adds up the samples of some metrics in Prometheus's text format, each times its weight.
func sumMetrics(r io.Reader, weights map[string]float64) (uint64, error) {
	var sum float64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), " ")
		name, _, _ := strings.Cut(series, "{")
		weight, wanted := weights[name]
		if !ok || !wanted {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("read metric %s: %w", name, err)
		}
		sum += v * weight
	}
	return uint64(sum), lines.Err()
}

// awaitQuiet waits until a node that gets no more input has applied everything that it received: its applied decrees stand still.
func awaitQuiet(ctx context.Context, p *process.Process) error {
	client := admin.NewClient(p.Admin(), "")
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var last uint64
	since := time.Now()
	for {
		answer, err := admin.Get[struct {
			Partitions []struct {
				Applied uint64 `json:"applied"`
			} `json:"partitions"`
		}](ctx, client, "/v1/status")
		if err != nil {
			return errors.Join(fmt.Errorf("wait for the backup to apply what it received: %w", err), p.Err())
		}
		var sum uint64
		for _, s := range answer.Partitions {
			sum += s.Applied
		}
		if sum != last {
			last, since = sum, time.Now()
		} else if time.Since(since) >= appliedQuiet {
			return nil
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return fmt.Errorf("wait for the backup to apply what it received: %w", ctx.Err())
		}
	}
}
