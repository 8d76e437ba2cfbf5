package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/node"
	"replicanode/server/admin"
	"replicanode/tasks"
)

func taskCommand() *cli.Command {
	return &cli.Command{
		Name:  "task",
		Usage: "show and steer background work on the long pool",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "show the task codes, their specs and how they are doing", Flags: remoteFlags(), Action: taskList},
			{Name: "explain", Usage: "show who runs, who waits and since when, what is picked next and why", Flags: remoteFlags(), Action: taskExplain},
			{Name: "set", Usage: "change a task code while the node runs", ArgsUsage: "CODE FIELD=VALUE…", Flags: remoteFlags(), Action: taskSet},
			{Name: "adaptive", Usage: "switch the controller that moves priorities by load", ArgsUsage: "on|off", Flags: remoteFlags(), Action: taskAdaptive},
			{Name: "run", Usage: "run a periodic task now", ArgsUsage: "CODE", Flags: remoteFlags(), Action: taskRun},
		},
	}
}

func taskList(c *cli.Context) error {
	return ask(c, func(client *admin.Client) error {
		a, err := admin.Get[node.TasksAnswer](c.Context, client, "/v1/tasks")
		if err != nil {
			return err
		}
		return showTasks(c, a)
	})
}

func showTasks(c *cli.Context, a node.TasksAnswer) error {
	return show(c, a, "CODE PRIORITY PERIOD TIMEOUT QUEUED RUNNING DONE FAILED WAIT-P50 WAIT-P99 RUN-P50 RUN-P99", taskRows)
}

func taskExplain(c *cli.Context) error {
	return ask(c, func(client *admin.Client) error {
		snapshot, err := admin.Get[tasks.Explanation](c.Context, client, "/v1/tasks/explain")
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return show(c, snapshot, "", nil)
		}
		_, err = fmt.Fprintln(c.App.Writer, snapshot.String())
		return err
	})
}

func taskSet(c *cli.Context) error {
	if c.NArg() < 2 {
		return usagef("set wants a task code and one or more FIELD=VALUE, for example: replicanode task set load_private_log priority=high")
	}
	client := admin.NewClient(c.String("admin"), c.String("password"))
	defer client.Close()
	code := c.Args().First()
	var answer node.TasksAnswer
	for _, arg := range c.Args().Tail() {
		field, value, ok := strings.Cut(arg, "=")
		if !ok {
			return usagef("%q is not FIELD=VALUE, for example priority=high", arg)
		}
		var err error
		if answer, err = admin.Post[node.TasksAnswer](c.Context, client, "/v1/tasks/"+url.PathEscape(code), node.TaskChange{Field: field, Value: value}); err != nil {
			return err
		}
	}
	return showTasks(c, answer)
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
