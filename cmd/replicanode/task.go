package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/node"
	"replicanode/server/admin"
	"replicanode/tasks"
	"replicanode/threadpool"
)

func taskCommand() *cli.Command {
	return &cli.Command{
		Name:  "task",
		Usage: "show and steer background work on the long pool",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "show the task codes, their specs and how they are doing", Action: taskList,
				Flags: append(remoteFlags(), &cli.BoolFlag{Name: "specs", Usage: "show every field of the specs instead of how the codes are doing"})},
			{Name: "explain", Usage: "show who runs, who waits and since when, what is picked next and why", Flags: remoteFlags(), Action: taskExplain},
			{Name: "set", Usage: "change fields of a task code's spec while the node runs, all or none, or take changes back", ArgsUsage: "CODE FIELD=VALUE…", Description: setFields, Action: taskSet,
				Flags: append(remoteFlags(), &cli.BoolFlag{Name: "reset", Usage: "first take back all that was set for the code while the node ran"})},
			{Name: "cancel", Usage: "cancel one queued, parked or running task", ArgsUsage: "ID", Description: cancelHelp, Flags: remoteFlags(), Action: taskCancel},
			{Name: "move", Usage: "move one queued, parked or running task to another priority", ArgsUsage: "ID LEVEL", Description: moveHelp, Flags: remoteFlags(), Action: taskMove},
			{Name: "pool", Usage: "show or change slots, limits, guards and I/O rates of the long pool while the node runs, all or none", ArgsUsage: "[FIELD=VALUE…]", Description: poolFields, Action: taskPool,
				Flags: append(remoteFlags(), &cli.BoolFlag{Name: "reset", Usage: "first take back all that was set while the node ran"})},
			{Name: "adaptive", Usage: "switch the controller that moves priorities by load", ArgsUsage: "on|off", Flags: remoteFlags(), Action: taskAdaptive},
			{Name: "run", Usage: "run a periodic task now", ArgsUsage: "CODE", Description: "CODE is disk_stat, gc_logs, gc_replicas or gc_values.", Flags: remoteFlags(), Action: taskRun},
		},
	}
}

const setFields = `FIELD is priority (low, common, high), max_running, max_started, max_queued, timeout, slice, period,
jitter, or retry.KIND.FIELD with KIND busy, timeout, conflict, other and FIELD initial, max, factor,
max_attempts, max_elapsed. VALUE default takes a change back, --reset all of them: the field is again as the
node was started. A change lasts until the node stops; --task of replicanode run sets the same from the
start. Example: replicanode task set load_private_log priority=high max_running=4`

const cancelHelp = `ID is the number that replicanode task explain shows. A task that has not started never does; one that has is
told to stop, which it does at its next slice. A periodic task runs again when its period is over.`

const moveHelp = `ID is the number that replicanode task explain shows, LEVEL is low, common or high. Later tasks of the same code
keep its own priority, which replicanode task set changes.`

const poolFields = `FIELD is workers, low_limit, common_limit, high_limit (slots that a level may hold), max_wait, low_share,
common_reserve, high_reserve (slots kept from lower levels), io_rate (LOW and COMMON together, bytes a second),
io_low_floor (LOW's share of it), io_low_cap, io_burst. off turns off what can be. VALUE default takes a change back,
--reset all of them: the field is again as the node was started. A change lasts until the node stops. Example: replicanode task pool workers=8 low_limit=6 io_rate=64MiB`

func taskList(c *cli.Context) error {
	return ask(c, func(client *admin.Client) error {
		a, err := admin.Get[node.TasksAnswer](c.Context, client, "/v1/tasks")
		if err != nil {
			return err
		}
		if c.Bool("specs") {
			return showSpecs(c, a)
		}
		return showTasks(c, a)
	})
}

func showTasks(c *cli.Context, a node.TasksAnswer) error {
	if err := show(c, a, "CODE PRIORITY PERIOD TIMEOUT QUEUED RUNNING DONE FAILED WAIT-P50 WAIT-P99 RUN-P50 RUN-P99", taskRows); err != nil {
		return err
	}
	return showOverridden(c, a.Overridden)
}

func taskExplain(c *cli.Context) error {
	return ask(c, func(client *admin.Client) error {
		a, err := admin.Get[node.ExplainAnswer](c.Context, client, "/v1/tasks/explain")
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return show(c, a, "", nil)
		}
		return writeExplanation(c.App.Writer, a)
	})
}

// shownDecisions is how many of the last picks the text has; JSON has more.
const shownDecisions = 20

func writeExplanation(w io.Writer, a node.ExplainAnswer) error {
	fmt.Fprintf(w, "%s; %s\n", a.Pool.String(), a.Adaptive.String())
	if len(a.Pool.Running) > 0 {
		fmt.Fprintln(w, "\nRunning")
		var rows [][]string
		for _, t := range a.Pool.Running {
			rows = append(rows, []string{number(t.ID), keyOf(t.Code, t.Key), level(t.Priority, t.Effective, t.Cause), short(t.For), short(t.Ran), number(int(t.Parks))})
		}
		if err := table(w, "ID TASK PRIORITY FOR RAN PARKS", rows); err != nil {
			return err
		}
	}
	if len(a.Pool.Waiting) > 0 {
		fmt.Fprintln(w, "\nWaiting, the next to run first")
		var rows [][]string
		for _, t := range a.Pool.Waiting {
			rows = append(rows, []string{number(t.ID), keyOf(t.Code, t.Key), level(t.Priority, t.Effective, t.Cause), short(t.For), t.Blocker.String(), fmt.Sprint(t.Parked)})
		}
		if err := table(w, "ID TASK PRIORITY WAITS FOR PARKED", rows); err != nil {
			return err
		}
	}
	if err := writeAdaptions(w, a.Adaptive.Decisions); err != nil {
		return err
	}
	if len(a.Decisions) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nLast picks, the newest last")
	var rows [][]string
	for _, d := range a.Decisions[max(0, len(a.Decisions)-shownDecisions):] {
		what := "started"
		if d.Resumed {
			what = fmt.Sprintf("resumed %d×", d.Times)
		}
		rows = append(rows, []string{d.At.Local().Format("15:04:05.000"), number(d.ID), keyOf(d.Code, d.Key), what, level(d.Priority, d.Effective, d.Cause), d.Reason.String(), number(d.Others), short(d.Waited)})
	}
	return table(w, "AT ID TASK WHAT PRIORITY WHY AMONG WAITED", rows)
}

// writeAdaptions tells what the controller changed last.
func writeAdaptions(w io.Writer, decisions []tasks.AdaptiveDecision) error {
	if len(decisions) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nLast changes of the controller, the newest last")
	var rows [][]string
	for _, d := range decisions[max(0, len(decisions)-shownDecisions):] {
		rows = append(rows, []string{d.At.Local().Format("15:04:05.000"), d.Lever, d.From, d.To, d.Reason.String(), fmt.Sprintf("%.4g", d.Signal)})
	}
	return table(w, "AT WHAT FROM TO WHY SIGNAL", rows)
}

// keyOf is a task's key, or its code where it has none. Keys of the node's own tasks begin with their code.
func keyOf(code, key string) string {
	switch {
	case key == "":
		return code
	case strings.HasPrefix(key, code):
		return key
	}
	return code + "[" + key + "]"
}

// level is the priority a task has, and how it came to another one.
func level(base, effective threadpool.Priority, cause threadpool.Cause) string {
	switch {
	case base != effective:
	case cause == threadpool.CauseMoved:
		return fmt.Sprintf("%s, %s", effective, cause)
	default:
		return base.String()
	}
	return fmt.Sprintf("%s, %s from %s", effective, cause, base)
}

func taskSet(c *cli.Context) error {
	if c.NArg() < 2 && !(c.Bool("reset") && c.NArg() == 1) {
		return usagef("set wants a task code and one or more FIELD=VALUE, or --reset, for example: replicanode task set load_private_log priority=high")
	}
	change, err := fieldChanges(c.Args().Tail(), "priority=high")
	if err != nil {
		return err
	}
	resetFirst(c, &change)
	client := admin.NewClient(c.String("admin"), c.String("password"))
	defer client.Close()
	answer, err := admin.Post[node.TasksAnswer](c.Context, client, "/v1/tasks/"+url.PathEscape(c.Args().First()), change)
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		answer = onlyCode(answer, c.Args().First())
	}
	return showSpecs(c, answer)
}

// resetFirst has --reset take back everything before the change.
func resetFirst(c *cli.Context, change *node.TaskChange) {
	if c.Bool("reset") {
		change.Fields = append([]node.FieldChange{{Field: tasks.AllFields, Value: tasks.Default}}, change.Fields...)
	}
}

// fieldChanges reads arguments of the form FIELD=VALUE.
func fieldChanges(args []string, example string) (node.TaskChange, error) {
	var change node.TaskChange
	for _, arg := range args {
		field, value, ok := strings.Cut(arg, "=")
		if !ok || field == "" || value == "" {
			return change, usagef("%q is not FIELD=VALUE, for example %s", arg, example)
		}
		change.Fields = append(change.Fields, node.FieldChange{Field: field, Value: value})
	}
	return change, nil
}

func taskPool(c *cli.Context) error {
	change, err := fieldChanges(c.Args().Slice(), "workers=8")
	if err != nil {
		return err
	}
	for i, f := range change.Fields {
		switch f.Field {
		case "io_rate", "io_low_cap", "io_burst":
			var size byteSize
			if f.Value == off || f.Value == tasks.Default {
				continue
			}
			if err := size.Set(f.Value); err != nil {
				return usagef("%s %q %v", f.Field, f.Value, err)
			}
			change.Fields[i].Value = fmt.Sprint(size.n)
		}
	}
	resetFirst(c, &change)
	client := admin.NewClient(c.String("admin"), c.String("password"))
	defer client.Close()
	var s threadpool.Settings
	if len(change.Fields) == 0 {
		s, err = admin.Get[threadpool.Settings](c.Context, client, "/v1/pool")
	} else {
		s, err = admin.Post[threadpool.Settings](c.Context, client, "/v1/pool", change)
	}
	if err != nil {
		return err
	}
	return show(c, s, "FIELD VALUE", poolRows)
}

// poolRows names the settings as taskPool takes them.
func poolRows(s threadpool.Settings) [][]string {
	orOff := func(n int) string {
		if n == 0 {
			return off
		}
		return number(n)
	}
	size := func(n int64) string {
		if n == 0 {
			return off
		}
		return (&byteSize{n: n}).String()
	}
	wait, share := off, off
	if s.Guards.MaxWait > 0 {
		wait = s.Guards.MaxWait.String()
	}
	if s.Guards.LowShare > 0 {
		share = fmt.Sprint(s.Guards.LowShare)
	}
	return [][]string{
		{"workers", number(s.Workers)},
		{"low_limit", orOff(s.MaxRunning[threadpool.Low])},
		{"common_limit", orOff(s.MaxRunning[threadpool.Common])},
		{"high_limit", orOff(s.MaxRunning[threadpool.High])},
		{"max_wait", wait},
		{"low_share", share},
		{"common_reserve", orOff(s.Guards.CommonReserve)},
		{"high_reserve", orOff(s.Guards.HighReserve)},
		{"io_rate", size(s.IO.BytesPerSecond)},
		{"io_low_floor", fmt.Sprint(s.IO.LowFloor)},
		{"io_low_cap", size(s.IO.LowCap)},
		{"io_burst", size(s.IO.Burst)},
	}
}

func taskCancel(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("cancel wants one argument, the ID of a task; see replicanode task explain")
	}
	found, err := askTask(c, "cancel", nil)
	if err != nil {
		return err
	}
	did := "cancelled"
	switch {
	case found.Cancelled:
		did = "had been told to stop before:"
	case found.State == threadpool.TaskRunning, found.State == threadpool.TaskParked:
		did = "told to stop:"
	}
	return showTask(c, found, did, "")
}

func taskMove(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef("move wants two arguments, the ID of a task and a level; see replicanode task explain")
	}
	to, err := threadpool.ParsePriority(c.Args().Get(1))
	if err != nil {
		return usagef("the level %q must be low, common or high", c.Args().Get(1))
	}
	found, err := askTask(c, "move", node.TaskMove{Priority: to.String()})
	if err != nil {
		return err
	}
	return showTask(c, found, "moved", fmt.Sprintf(", from %s to %s", found.Priority, to))
}

// askTask asks for something to be done to the task whose ID is the first argument.
func askTask(c *cli.Context, what string, body any) (threadpool.FoundTask, error) {
	id, err := strconv.ParseUint(strings.TrimPrefix(c.Args().First(), "#"), 10, 64)
	if err != nil {
		return threadpool.FoundTask{}, usagef("%q is not the ID of a task; see replicanode task explain", c.Args().First())
	}
	client := admin.NewClient(c.String("admin"), c.String("password"))
	defer client.Close()
	return admin.Post[threadpool.FoundTask](c.Context, client, fmt.Sprintf("/v1/pool/tasks/%d/%s", id, what), body)
}

// showTask tells what was done to a task.
func showTask(c *cli.Context, f threadpool.FoundTask, did, how string) error {
	if c.Bool("json") {
		return show(c, f, "", nil)
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s task %d, %s, %s%s\n", did, f.ID, keyOf(f.Code, f.Key), f.State, how)
	return err
}

func taskRun(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("run wants one argument, a task code; see replicanode task list")
	}
	client := admin.NewClient(c.String("admin"), c.String("password"))
	defer client.Close()
	_, err := admin.Post[node.Done](c.Context, client, "/v1/tasks/"+url.PathEscape(c.Args().First())+"/run", nil)
	return err
}

func taskAdaptive(c *cli.Context) error {
	word := c.Args().First()
	if c.NArg() != 1 || word != "on" && word != "off" {
		return usagef("adaptive wants on or off")
	}
	client := admin.NewClient(c.String("admin"), c.String("password"))
	defer client.Close()
	status, err := admin.Post[tasks.AdaptiveStatus](c.Context, client, "/v1/adaptive", node.AdaptiveSwitch{On: word == "on"})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, status.String())
	return err
}

// short shows a duration with three digits, and nothing for none.
func short(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

func taskRows(a node.TasksAnswer) [][]string {
	specs := map[tasks.Code]tasks.Spec{}
	for _, spec := range a.Specs {
		specs[spec.Code] = spec
	}
	var rows [][]string
	for _, s := range a.Stats {
		spec := specs[s.Code]
		rows = append(rows, []string{string(s.Code), s.Priority.String(), short(spec.Period), short(spec.Timeout), number(s.Queued + s.Parked), number(s.Running),
			number(s.Done), number(s.Failed), short(s.Wait.P50), short(s.Wait.P99), short(s.Run.P50), short(s.Run.P99)})
	}
	return rows
}
