package node

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"replicanode/checkpoint"
	"replicanode/duplication"
	"replicanode/gc"
	"replicanode/replica"
	"replicanode/server/admin"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// StatusAnswer is the answer of GET /v1/status.
type StatusAnswer struct {
	Identity      Identity         `json:"identity"`
	Addresses     Addresses        `json:"addresses"`
	UptimeSeconds float64          `json:"uptime_seconds"`
	Readiness     admin.Readiness  `json:"readiness"`
	Partitions    []replica.Status `json:"partitions"`
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

// TasksAnswer is the answer of GET /v1/tasks.
type TasksAnswer struct {
	Specs []tasks.Spec      `json:"specs"`
	Stats []tasks.CodeStats `json:"stats"`
}

// TaskChange is the body of POST /v1/tasks/{code}, fields of its spec, and of POST /v1/pool, fields of the long pool's settings. They
// change together or not at all.
type TaskChange struct {
	Fields []FieldChange `json:"fields"`
}

// FieldChange is one field and its new value, for a spec as --task takes them.
type FieldChange struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

// AdaptiveSwitch is the body of POST /v1/adaptive.
type AdaptiveSwitch struct {
	On bool `json:"on"`
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
	route(n, "GET /v1/tasks", func(*http.Request, none) (TasksAnswer, error) {
		return TasksAnswer{Specs: n.tasks.Specs(), Stats: n.tasks.Stats()}, nil
	})
	route(n, "GET /v1/tasks/explain", n.getExplanation)
	route(n, "POST /v1/adaptive", n.postAdaptive)
	route(n, "GET /v1/pool", func(*http.Request, none) (threadpool.Settings, error) { return n.pool.Settings(), nil })
	route(n, "POST /v1/pool", n.postPool)
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
	s, ok := n.jobs.get(id)
	if !ok {
		return JobStatus{}, admin.NotFound("job %d is not known; the last %d jobs are remembered", id, maxJobs)
	}
	return s, nil
}

// postTask changes fields of a task code's spec, all or none.
func (n *Node) postTask(r *http.Request, in TaskChange) (TasksAnswer, error) {
	if len(in.Fields) == 0 {
		return TasksAnswer{}, admin.BadRequest("say which fields to change, for example {\"fields\":[{\"field\":\"priority\",\"value\":\"high\"}]}")
	}
	var overrides []tasks.Override
	for _, f := range in.Fields {
		o, err := tasks.ParseOverride(fmt.Sprintf("%s.%s=%s", r.PathValue("code"), f.Field, f.Value))
		if err != nil {
			return TasksAnswer{}, admin.BadRequest("%v", err)
		}
		overrides = append(overrides, o)
	}
	switch err := n.tasks.Apply(overrides...); {
	case errors.Is(err, tasks.ErrUnknownCode):
		return TasksAnswer{}, admin.NotFound("%v; there are %s", err, n.taskCodes())
	case err != nil:
		return TasksAnswer{}, admin.BadRequest("%v", err)
	}
	return TasksAnswer{Specs: n.tasks.Specs(), Stats: n.tasks.Stats()}, nil
}

// taskCodes names all task codes.
func (n *Node) taskCodes() string {
	var codes []string
	for _, spec := range n.tasks.Specs() {
		codes = append(codes, string(spec.Code))
	}
	return strings.Join(codes, ", ")
}

// postAdaptive switches the controller of priorities.
func (n *Node) postAdaptive(_ *http.Request, in AdaptiveSwitch) (tasks.AdaptiveStatus, error) {
	n.tasks.SetAdaptive(in.On)
	return n.tasks.AdaptiveStatus(), nil
}

// postPool changes settings of the long pool, all or none. LOW keeps off one slot whatever changes.
func (n *Node) postPool(_ *http.Request, in TaskChange) (threadpool.Settings, error) {
	if len(in.Fields) == 0 {
		return threadpool.Settings{}, admin.BadRequest("say which fields to change, for example {\"fields\":[{\"field\":\"workers\",\"value\":\"8\"}]}")
	}
	n.settings.Lock()
	defer n.settings.Unlock()
	s := n.pool.Settings()
	limited := false
	for _, f := range in.Fields {
		if err := s.Set(f.Field, f.Value); err != nil {
			return s, admin.BadRequest("%v", err)
		}
		limited = limited || f.Field == "low_limit"
	}
	if low, most := &s.MaxRunning[threadpool.Low], max(1, s.Workers-1); *low > most {
		if limited {
			return s, admin.BadRequest("low_limit %d must be less than workers %d: one slot is kept for what is more urgent", *low, s.Workers)
		}
		*low = most
	}
	if err := n.pool.Apply(s); err != nil {
		return s, admin.BadRequest("%v", err)
	}
	for _, f := range in.Fields {
		n.opts.Logger.Info("long pool changed", "field", f.Field, "value", f.Value)
	}
	return n.pool.Settings(), nil
}

// postTaskRun runs a periodic task now.
func (n *Node) postTaskRun(r *http.Request, _ none) (Done, error) {
	code := tasks.Code(r.PathValue("code"))
	run, ok := n.maintenance.triggers()[code]
	if !ok {
		return Done{}, admin.NotFound("task code %q can't be run by hand; try disk_stat, gc_logs, gc_replicas or gc_values", code)
	}
	run()
	return Done{Done: true}, nil
}

func (n *Node) getGC(*http.Request, none) (GCAnswer, error) {
	return n.maintenance.status(), nil
}
