package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"replicanode/node"
	"replicanode/tasks"
)

const specHeader = "CODE PRIORITY MAX-RUNNING MAX-STARTED MAX-QUEUED TIMEOUT SLICE PERIOD JITTER RETRY"

// specRows are the specs in force, with what is not bounded or not done as "-". The priority is the configured one, whatever the controller
// has made of it.
func specRows(a node.TasksAnswer) [][]string {
	bound := func(n int) string {
		if n == 0 {
			return "-"
		}
		return number(n)
	}
	var rows [][]string
	for _, s := range a.Specs {
		jitter := "-"
		if s.Period > 0 && s.Jitter > 0 {
			jitter = fmt.Sprintf("±%.3g%%", s.Jitter*100)
		}
		rows = append(rows, []string{string(s.Code), s.Priority.String(), bound(s.MaxRunning), bound(s.MaxStarted), bound(s.MaxQueued), short(s.Timeout),
			short(s.Slice), short(s.Period), jitter, retryText(&s.Retry)})
	}
	return rows
}

// retryText says which kinds of errors are retried how, kinds of one policy together.
func retryText(p *tasks.RetryPolicy) string {
	var parts []string
	kinds := map[tasks.Backoff]string{}
	var order []tasks.Backoff
	for k := tasks.Other; k < tasks.Permanent; k++ {
		b := *p.For(k)
		if b.Initial == 0 {
			continue
		}
		if kinds[b] == "" {
			kinds[b] = k.String()
			order = append(order, b)
			continue
		}
		kinds[b] += "," + k.String()
	}
	if len(order) == 0 {
		return "-"
	}
	for _, b := range order {
		parts = append(parts, kinds[b]+" "+backoffText(b))
	}
	return strings.Join(parts, "; ")
}

func backoffText(b tasks.Backoff) string {
	text := fmt.Sprintf("%s–%s ×%g", shortDuration(b.Initial), shortDuration(b.Max), b.Factor)
	if b.MaxAttempts > 0 {
		text += fmt.Sprintf(" %d attempts", b.MaxAttempts)
	}
	if b.MaxElapsed > 0 {
		text += " within " + shortDuration(b.MaxElapsed)
	}
	return text
}

// showSpecs shows the specs, and who changed what of them.
func showSpecs(c *cli.Context, a node.TasksAnswer) error {
	if err := show(c, a, specHeader, specRows); err != nil {
		return err
	}
	return showOverridden(c, a.Overridden)
}

// showOverridden tells who changed which fields; JSON has it anyway.
func showOverridden(c *cli.Context, all []tasks.Overridden) error {
	if len(all) == 0 || c.Bool("json") {
		return nil
	}
	fmt.Fprintln(c.App.Writer, "\nOverridden; the last line of a field is in force")
	var rows [][]string
	for _, o := range all {
		rows = append(rows, []string{string(o.Code), o.Field, o.Value, o.Instead, o.By.String()})
	}
	return table(c.App.Writer, "CODE FIELD VALUE INSTEAD-OF BY", rows)
}

// onlyCode leaves one code of an answer.
func onlyCode(a node.TasksAnswer, code string) node.TasksAnswer {
	a.Specs = slices.DeleteFunc(a.Specs, func(s tasks.Spec) bool { return string(s.Code) != code })
	a.Overridden = slices.DeleteFunc(a.Overridden, func(o tasks.Overridden) bool { return string(o.Code) != code })
	return a
}
