package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"replicanode/checkpoint"
	"replicanode/duplication"
	"replicanode/gc"
	"replicanode/replica"
	"replicanode/server/admin"
	"replicanode/threadpool"
)

// StatusAnswer is the answer of GET /v1/status.
type StatusAnswer struct {
	Identity      Identity         `json:"identity"`
	Addresses     Addresses        `json:"addresses"`
	UptimeSeconds float64          `json:"uptime_seconds"`
	Readiness     admin.Readiness  `json:"readiness"`
	Partitions    []replica.Status `json:"partitions"`
	// CheckpointStore is what GET /v1/checkpoints calls store.
	CheckpointStore StoreStatus `json:"checkpoint_store"`
}

// DuplicationsAnswer is the answer of GET /v1/duplications: one pipeline per partition and remote.
type DuplicationsAnswer struct {
	Pipelines []duplication.PipelineStatus `json:"pipelines"`
}

// LagAnswer is the answer of GET /v1/duplications/{remote}/lag.
type LagAnswer struct {
	Remote string          `json:"remote"`
	Lag    duplication.Lag `json:"lag"`
}

// JobsAnswer lists what a request began.
type JobsAnswer struct {
	Jobs []JobStatus `json:"jobs"`
}

// GCAnswer is the answer of GET /v1/gc.
type GCAnswer struct {
	Logs    []gc.LogStatus    `json:"logs"`
	Dropped gc.ReplicasStatus `json:"dropped"`
	Values  []gc.ValuesStatus `json:"values"`
}

// DisksAnswer is the answer of GET /v1/disks.
type DisksAnswer struct {
	Disks []gc.DiskStatus `json:"disks"`
}

// Done is the answer of requests that have nothing to tell.
type Done struct {
	Done bool `json:"done"`
}

type none struct{}

// routes registers the JSON API. All of it but the health pages wants a node that serves.
func (n *Node) routes() {
	route(n, "GET /v1/status", n.getStatus)
	route(n, "GET /v1/duplications", func(*http.Request, none) (DuplicationsAnswer, error) {
		return DuplicationsAnswer{Pipelines: n.source.Status()}, nil
	})
	route(n, "GET /v1/duplications/{remote}/lag", n.getLag)
	route(n, "POST /v1/duplications/{remote}/pause", func(r *http.Request, _ none) (Done, error) {
		return remoteResult(n.source.Pause(r.PathValue("remote")))
	})
	route(n, "POST /v1/duplications/{remote}/resume", func(r *http.Request, _ none) (Done, error) {
		return remoteResult(n.source.Resume(r.PathValue("remote")))
	})
	route(n, "GET /v1/checkpoints", n.getCheckpoints)
	route(n, "POST /v1/checkpoints", n.postCheckpoints)
	route(n, "POST /v1/checkpoints/prune", n.postPrune)
	route(n, "GET /v1/jobs/{id}", n.getJob)
	route(n, "GET /v1/tasks", func(*http.Request, none) (TasksAnswer, error) { return n.tasksAnswer(), nil })
	route(n, "GET /v1/tasks/explain", n.getExplanation)
	route(n, "POST /v1/adaptive", n.postAdaptive)
	route(n, "GET /v1/pool", func(*http.Request, none) (threadpool.Settings, error) { return n.pool.Settings(), nil })
	route(n, "POST /v1/pool", n.postPool)
	route(n, "POST /v1/pool/tasks/{id}/cancel", n.postCancel)
	route(n, "POST /v1/pool/tasks/{id}/move", n.postMove)
	route(n, "POST /v1/tasks/{code}", n.postTask)
	route(n, "POST /v1/tasks/{code}/run", n.postTaskRun)
	route(n, "GET /v1/gc", n.getGC)
	route(n, "GET /v1/disks", func(*http.Request, none) (DisksAnswer, error) {
		return DisksAnswer{Disks: n.maintenance.disk.Status()}, nil
	})
}

// route registers a handler that is only called while the node serves.
func route[In, Out any](n *Node, pattern string, h func(*http.Request, In) (Out, error)) {
	admin.Handle(n.admin, pattern, func(r *http.Request, in In) (Out, error) {
		if phase := n.phases.readiness().Phase; phase != PhaseServing {
			var out Out
			return out, &admin.Error{Status: http.StatusServiceUnavailable, Message: fmt.Sprintf("the node is not serving yet or no more (%s); see /readyz", phase)}
		}
		return h(r, in)
	})
}

func (n *Node) getStatus(*http.Request, none) (StatusAnswer, error) {
	a := StatusAnswer{Identity: n.folders.Identity, Addresses: n.Addresses(), UptimeSeconds: time.Since(n.started).Seconds(), Readiness: n.Ready()}
	for _, p := range n.host.Partitions() {
		a.Partitions = append(a.Partitions, p.Status())
	}
	a.CheckpointStore = StatusOfStore(n.checkpoints.Store())
	return a, nil
}

func (n *Node) getLag(r *http.Request, _ none) (LagAnswer, error) {
	remote := r.PathValue("remote")
	lag, err := n.source.LagSample(remote)
	if err != nil {
		return LagAnswer{}, unknownRemote(err)
	}
	return LagAnswer{Remote: remote, Lag: lag}, nil
}

func remoteResult(err error) (Done, error) {
	return Done{Done: err == nil}, unknownRemote(err)
}

func unknownRemote(err error) error {
	if errors.Is(err, duplication.ErrUnknownRemote) {
		return admin.NotFound("%v; the remotes are those of --duplicate-to", err)
	}
	return err
}

// busy gives a full queue the status that tells a client to try again.
func busy(err error) error {
	if errors.Is(err, threadpool.ErrQueueFull) || errors.Is(err, checkpoint.ErrNodeRunning) {
		return &admin.Error{Status: http.StatusTooManyRequests, Message: err.Error()}
	}
	return err
}

func (n *Node) getJob(r *http.Request, _ none) (JobStatus, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return JobStatus{}, admin.BadRequest("job %q is not a number", r.PathValue("id"))
	}
	wait, err := jobWait(r.URL.Query().Get("wait"))
	if err != nil {
		return JobStatus{}, err
	}
	job, ok := n.jobs.find(id)
	if !ok {
		return JobStatus{}, admin.NotFound("job %d is not known; the last %d jobs are remembered", id, maxJobs)
	}
	if wait > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		select {
		case <-job.Done():
		case <-ctx.Done():
		case <-n.admin.Stopping():
		}
	}
	return status(id, job), nil
}

// maxJobWait is less than clients wait for an answer.
const maxJobWait = 20 * time.Second

func jobWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(s)
	if err != nil || wait < 0 || wait > maxJobWait {
		return 0, admin.BadRequest("wait %q is not a time from 0s to %s", s, maxJobWait)
	}
	return wait, nil
}

func (n *Node) getGC(*http.Request, none) (GCAnswer, error) {
	return n.maintenance.status(), nil
}
