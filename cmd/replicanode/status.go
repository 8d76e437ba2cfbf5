package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/node"
	"replicanode/server/admin"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show a running node and its partitions",
		Flags: remoteFlags(),
		Action: func(c *cli.Context) error {
			return ask(c, func(client *admin.Client) error {
				ready, err := admin.Get[admin.Readiness](c.Context, client, "/readyz")
				if err != nil {
					return err
				}
				if ready.Phase != node.PhaseServing {
					return show(c, ready, "PHASE DONE SECONDS REASONS", readinessRows)
				}
				a, err := admin.Get[node.StatusAnswer](c.Context, client, "/v1/status")
				if err != nil {
					return err
				}
				if !c.Bool("json") {
					fmt.Fprintf(c.App.Writer, "cluster %d, node %d, up %.0f s, ready %t\n", a.Identity.ClusterID, a.Identity.NodeID, a.UptimeSeconds, a.Readiness.Ready)
					for _, reason := range a.Readiness.Reasons {
						fmt.Fprintln(c.App.Writer, "not ready:", reason)
					}
					if st := a.CheckpointStore; st.Since != nil {
						fmt.Fprintf(c.App.Writer, "the store of checkpoints %s does not answer since %s: %s\n", st.Place, st.Since.Format(time.RFC3339), st.Problem)
					}
				}
				return show(c, a, "PARTITION PHASE SERVING LEADER APPLIED DURABLE LOG-FIRST LOG-LAST LOG-BYTES ERROR", statusRows)
			})
		},
	}
}

func statusRows(a node.StatusAnswer) [][]string {
	var rows [][]string
	for _, p := range a.Partitions {
		problem := p.Error
		if problem == "" {
			problem = p.Refusing
		}
		rows = append(rows, []string{number(p.Partition), p.Phase, fmt.Sprint(p.Serving), number(p.Leader), number(p.Applied), number(p.Durable),
			number(p.Log.First), number(p.Log.Last), size(p.Log.Bytes), problem})
	}
	return rows
}

func readinessRows(r admin.Readiness) [][]string {
	row := []string{r.Phase, fmt.Sprintf("%d/%d", r.Done, r.Total), fmt.Sprintf("%.1f", r.Seconds), ""}
	rows := [][]string{}
	for _, reason := range r.Reasons {
		row[3] = reason
		rows = append(rows, row)
		row = []string{"", "", "", ""}
	}
	if len(rows) == 0 {
		rows = append(rows, row)
	}
	return rows
}

func number[T ~uint64 | ~uint32 | ~int64 | ~int](n T) string {
	return strconv.FormatInt(int64(n), 10)
}

var byteUnits = [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// size shows bytes in binary units with three digits.
func size[T ~uint64 | ~int64 | ~int](n T) string {
	v, i := float64(n), 0
	for v >= 1024 && i < len(byteUnits)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", int64(n))
	}
	if v >= 1000 {
		return fmt.Sprintf("%.0f %s", v, byteUnits[i])
	}
	return fmt.Sprintf("%.3g %s", v, byteUnits[i])
}
