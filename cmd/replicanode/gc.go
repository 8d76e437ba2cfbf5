package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/gc"
	"replicanode/node"
	"replicanode/server/admin"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "show what garbage collection keeps and why, and the disks",
		Subcommands: []*cli.Command{
			{
				Name:  "explain",
				Usage: "show which rule holds each partition's log back, and for how long",
				Flags: remoteFlags(),
				Action: func(c *cli.Context) error {
					return ask(c, func(client *admin.Client) error {
						a, err := admin.Get[node.GCAnswer](c.Context, client, "/v1/gc")
						if err != nil {
							return err
						}
						return show(c, a, "PARTITION FIRST LAST BYTES RELEASABLE HELD-BY HELD HELD-FOR", logRows)
					})
				},
			},
			{
				Name:  "disks",
				Usage: "show space, latency and what takes the space",
				Flags: remoteFlags(),
				Action: func(c *cli.Context) error {
					return ask(c, func(client *admin.Client) error {
						a, err := admin.Get[node.DisksAnswer](c.Context, client, "/v1/disks")
						if err != nil {
							return err
						}
						return show(c, a, "PATH LEVEL FREE TOTAL LOGS DATA CHECKPOINTS DROPPED SYNC ERROR", diskRows)
					})
				},
			},
		},
	}
}

func logRows(a node.GCAnswer) [][]string {
	var rows [][]string
	for _, l := range a.Logs {
		held := l.HeldBy.Rule.String()
		if l.HeldBy.Name != "" {
			held += " " + l.HeldBy.Name
		}
		if !l.HeldBy.Known {
			held += " (unknown)"
		}
		rows = append(rows, []string{number(l.Partition), number(l.First), number(l.Last), size(l.Bytes), number(l.Releasable), held, number(l.Held),
			short(time.Duration(l.HeldSeconds * float64(time.Second)))})
	}
	return rows
}

func diskRows(a node.DisksAnswer) [][]string {
	var rows [][]string
	for _, d := range a.Disks {
		var sum gc.PartitionUsage
		for _, p := range d.Partitions {
			sum.LogBytes += p.LogBytes
			sum.DataBytes += p.DataBytes
			sum.CheckpointBytes += p.CheckpointBytes
		}
		problem := d.LastError
		if d.Stuck {
			problem = "does not answer"
		}
		rows = append(rows, []string{d.Path, d.Level.String(), size(d.FreeBytes), size(d.TotalBytes), size(sum.LogBytes), size(sum.DataBytes),
			size(sum.CheckpointBytes), size(d.DroppedBytes), fmt.Sprintf("%.1fms", d.SyncSeconds*1e3), problem})
	}
	return rows
}
