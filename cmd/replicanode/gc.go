package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/gc"
	"replicanode/node"
	"replicanode/server/admin"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "show what garbage collection keeps and why, what it will remove, and the disks",
		Subcommands: []*cli.Command{
			{
				Name:  "list",
				Usage: "list the dropped replicas and when they are removed",
				Description: "With --data-dir the node that runs on that folder is asked, or the folder is read when none does;\n" +
					"without it the node at --admin is asked. Any one of several folders will do. Until its removal begins,\n" +
					"gc undelete brings a replica back.",
				Flags:  remoteFlags(ownerDirFlag()),
				Action: gcList,
			},
			undeleteCommand(),
			{
				Name:  "explain",
				Usage: "show which rule holds each partition's log back, and for how long",
				Flags: remoteFlags(ownerDirFlag()),
				Action: func(c *cli.Context) error {
					return askOnlyLive(c, "what holds its logs back", func(client *admin.Client) error {
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
				Flags: remoteFlags(ownerDirFlag()),
				Action: func(c *cli.Context) error {
					return askOnlyLive(c, "how its disks are", func(client *admin.Client) error {
						a, err := admin.Get[node.DisksAnswer](c.Context, client, "/v1/disks")
						if err != nil {
							return err
						}
						return show(c, a, "PATH LEVEL FREE TOTAL LOGS DATA CHECKPOINTS DROPPED GARBAGE WRITE SYNC READ IO-ERRORS ERROR", diskRows)
					})
				},
			},
		},
	}
}

func gcList(c *cli.Context) error {
	return askOwner(c, func(client *admin.Client) error {
		a, err := admin.Get[node.GCAnswer](c.Context, client, "/v1/gc")
		if err != nil {
			return err
		}
		for _, problem := range a.Dropped.Unlisted {
			fmt.Fprintf(c.App.ErrWriter, "replicanode: not listed: %s\n", problem)
		}
		return showDropped(c, a.Dropped, len(a.Dropped.Folders), "NAME PARTITION KIND DROPPED REMOVED-AFTER STATE IN", droppedRows)
	}, func() error {
		return listDropped(c)
	})
}

// listDropped lists the dropped replicas of a stopped node. When they go is the running node's to say: it has the grace times.
func listDropped(c *cli.Context) error {
	folders, unread, err := node.ListDropped(dataDirs(c))
	if err != nil {
		return err
	}
	for _, err := range unread {
		fmt.Fprintf(c.App.ErrWriter, "replicanode: not listed: %v\n", err)
	}
	return showDropped(c, folders, len(folders), "NAME PARTITION KIND DROPPED STATE IN", folderRows)
}

// showDropped is show for n dropped replicas.
func showDropped[T any](c *cli.Context, v T, n int, header string, rows func(T) [][]string) error {
	if n == 0 && !c.Bool("json") {
		fmt.Fprintln(c.App.Writer, "there are no dropped replicas")
		return nil
	}
	return show(c, v, header, rows)
}

// askOnlyLive is askOwner for what only a running node knows.
func askOnlyLive(c *cli.Context, what string, live func(client *admin.Client) error) error {
	return askOwner(c, live, func() error {
		return fmt.Errorf("no node runs on %s; %s only a running one knows", strings.Join(dataDirs(c), ", "), what)
	})
}

func droppedRows(s gc.ReplicasStatus) [][]string {
	var rows [][]string
	for _, f := range s.Folders {
		rows = append(rows, []string{f.Name, number(f.Partition), string(f.Kind), f.Dropped.Format(time.RFC3339), f.Due.Format(time.RFC3339), folderState(f.Folder), f.In})
	}
	return rows
}

func folderState(f gc.Folder) string {
	if f.Deleting {
		return "being removed"
	}
	return "restorable"
}

func logRows(a node.GCAnswer) [][]string {
	var rows [][]string
	for _, l := range a.Logs {
		if !l.Open {
			why := "not looked at yet"
			if l.LastError != "" {
				why = "not open: " + l.LastError
			}
			rows = append(rows, []string{number(l.Partition), "-", "-", "-", "-", why, "-", "-"})
			continue
		}
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
			sum.GarbageBytes += p.GarbageBytes
		}
		problem := d.LastError
		switch {
		case d.Stuck:
			problem = "does not answer since " + d.StuckSince.Format(time.RFC3339)
		case d.Slow && problem == "":
			problem = "answers slowly"
		}
		rows = append(rows, []string{d.Path, d.Level.String(), size(d.FreeBytes), size(d.TotalBytes), size(sum.LogBytes), size(sum.DataBytes),
			size(sum.CheckpointBytes), size(d.DroppedBytes), size(sum.GarbageBytes), fmt.Sprintf("%.1fms", d.WriteSeconds*1e3), fmt.Sprintf("%.1fms", d.SyncSeconds*1e3), fmt.Sprintf("%.1fms", d.ReadSeconds*1e3),
			number(d.IOErrors), problem})
	}
	return rows
}
