package node

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"replicanode/server/admin"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// TasksAnswer is the answer of GET /v1/tasks.
type TasksAnswer struct {
	Specs      []tasks.Spec       `json:"specs"`
	Overridden []tasks.Overridden `json:"overridden"`
	Stats      []tasks.CodeStats  `json:"stats"`
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

// TaskMove is the body of POST /v1/pool/tasks/{id}/move.
type TaskMove struct {
	// Priority is the new level by name.
	Priority string `json:"priority"`
}

func (n *Node) tasksAnswer() TasksAnswer {
	return TasksAnswer{Specs: n.tasks.Specs(), Overridden: n.tasks.Overridden(), Stats: n.tasks.Stats()}
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
	return n.tasksAnswer(), nil
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
		if err := n.changePool(&s, f); err != nil {
			return s, admin.BadRequest("%v", err)
		}
		limited = limited || f.Field == "low_limit" && f.Value != tasks.Default
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

// changePool makes one change of the pool's settings, or takes it back.
func (n *Node) changePool(s *threadpool.Settings, f FieldChange) error {
	switch {
	case f.Field == tasks.AllFields && f.Value == tasks.Default:
		*s = n.startedPool
		return nil
	case f.Field == tasks.AllFields:
		return fmt.Errorf("all fields together can only be set to %s", tasks.Default)
	case f.Value == tasks.Default:
		return s.Reset(f.Field, n.startedPool)
	}
	return s.Set(f.Field, f.Value)
}

// postCancel cancels one task of the long pool.
func (n *Node) postCancel(r *http.Request, _ none) (threadpool.FoundTask, error) {
	id, err := taskNumber(r)
	if err != nil {
		return threadpool.FoundTask{}, err
	}
	found, err := n.pool.CancelTask(id)
	if err != nil {
		return found, noTask(id, err)
	}
	n.opts.Logger.Info("task cancelled by an operator", "id", id, "code", found.Code, "key", found.Key, "state", found.State.String())
	return found, nil
}

// postMove gives one task of the long pool another level.
func (n *Node) postMove(r *http.Request, in TaskMove) (threadpool.FoundTask, error) {
	id, err := taskNumber(r)
	if err != nil {
		return threadpool.FoundTask{}, err
	}
	to, err := threadpool.ParsePriority(in.Priority)
	if err != nil {
		return threadpool.FoundTask{}, admin.BadRequest("priority %q must be low, common or high", in.Priority)
	}
	found, err := n.pool.MoveTask(id, to)
	if err != nil {
		return found, noTask(id, err)
	}
	n.opts.Logger.Info("task moved by an operator", "id", id, "code", found.Code, "key", found.Key, "state", found.State.String(),
		"from", found.Priority.String(), "to", to.String())
	return found, nil
}

func taskNumber(r *http.Request) (uint64, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, admin.BadRequest("task %q is not a number; GET /v1/tasks/explain has those of all tasks", r.PathValue("id"))
	}
	return id, nil
}

// noTask tells a number that is wrong from one that is too late.
func noTask(id uint64, err error) error {
	switch {
	case errors.Is(err, threadpool.ErrTaskEnded):
		return &admin.Error{Status: http.StatusGone, Message: fmt.Sprintf("task %d has ended", id)}
	case errors.Is(err, threadpool.ErrUnknownTask):
		return admin.NotFound("there is no task %d; numbers begin anew when a node starts, see replicanode task explain", id)
	default:
		return err
	}
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
