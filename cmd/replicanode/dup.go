package main

import (
	"fmt"
	"net/url"

	"github.com/urfave/cli/v2"

	"replicanode/duplication"
	"replicanode/node"
	"replicanode/server/admin"
)

func dupCommand() *cli.Command {
	return &cli.Command{
		Name:  "dup",
		Usage: "show and steer duplication to remote clusters",
		Subcommands: []*cli.Command{
			{
				Name:  "list",
				Usage: "show how far each remote is behind, by partition",
				Flags: remoteFlags(),
				Action: func(c *cli.Context) error {
					return ask(c, func(client *admin.Client) error {
						a, err := admin.Get[node.DuplicationsAnswer](c.Context, client, "/v1/duplications")
						if err != nil {
							return err
						}
						return show(c, a, "REMOTE PARTITION STATE LAG LAG-DECREES LAG-BYTES CONFIRMED APPLIED LIMITED-BY SKIPPED ERROR", pipelineRows)
					})
				},
			},
			remoteSwitch("pause", "stop shipping to a remote; its log is kept meanwhile"),
			remoteSwitch("resume", "go on shipping to a remote"),
		},
	}
}

func pipelineRows(a node.DuplicationsAnswer) [][]string {
	var rows [][]string
	for _, p := range a.Pipelines {
		confirmed := number(p.Confirmed)
		if !p.Known {
			confirmed = "unknown"
		}
		rows = append(rows, []string{p.Remote, number(p.Partition), p.State.String(), fmt.Sprintf("%.3fs", p.Lag.Seconds), number(p.Lag.Decrees),
			size(p.Lag.Bytes), confirmed, number(p.Applied), p.LimitedBy.String(), skipped(p), p.LastError})
	}
	return rows
}

// shownRanges is how many of the newest skipped ranges a line shows.
const shownRanges = 3

// skipped is how many decrees a remote was not given, and the newest of them.
func skipped(p duplication.PipelineStatus) string {
	if p.SkippedDecrees == 0 {
		return "0"
	}
	text := number(p.SkippedDecrees) + ":"
	newest := p.Skipped[max(0, len(p.Skipped)-shownRanges):]
	if uint64(len(newest)) < p.SkippedRanges {
		text += "…,"
	}
	for i, r := range newest {
		if i > 0 {
			text += ","
		}
		text += number(r.First)
		if r.Last > r.First {
			text += "-" + number(r.Last)
		}
	}
	return text
}

// remoteSwitch is a command with one argument, the remote, that the node takes as a verb.
func remoteSwitch(verb, usage string) *cli.Command {
	return &cli.Command{
		Name:      verb,
		Usage:     usage,
		ArgsUsage: "REMOTE",
		Flags:     remoteFlags(),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("%s wants one argument, the name of a remote; see replicanode dup list", verb)
			}
			client := admin.NewClient(c.String("admin"), c.String("password"))
			defer client.Close()
			_, err := admin.Post[node.Done](c.Context, client, "/v1/duplications/"+url.PathEscape(c.Args().First())+"/"+verb, nil)
			return err
		},
	}
}
