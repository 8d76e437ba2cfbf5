package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/checkpoint"
	"replicanode/node"
	"replicanode/server/admin"
)

func checkpointCommand() *cli.Command {
	return &cli.Command{
		Name:  "checkpoint",
		Usage: "make, list, verify and restore checkpoints of partitions",
		Subcommands: []*cli.Command{
			{
				Name:  "create",
				Usage: "make a checkpoint of one or all partitions of a running node and wait for it",
				Flags: remoteFlags(
					&cli.UintFlag{Name: "partition", Usage: "`NUMBER` of the partition"},
					&cli.BoolFlag{Name: "all", Usage: "all partitions"},
				),
				Action: checkpointCreate,
			},
			{
				Name:  "list",
				Usage: "list the checkpoints in a data folder, of a running or a stopped node",
				Flags: []cli.Flag{dataDirFlag(), &cli.UintFlag{Name: "partition", Usage: "only the partition with this `NUMBER`"}, jsonFlag()},
				Action: func(c *cli.Context) error {
					return withCheckpoints(c, func(infos []checkpoint.Info) error {
						return show(c, infos, "PARTITION DECREE CREATED ENTRIES BYTES PARENT PROBLEM", checkpointRows)
					})
				},
			},
			{
				Name:   "verify",
				Usage:  "read every byte of the checkpoints in a data folder and name what is damaged",
				Flags:  []cli.Flag{dataDirFlag(), &cli.UintFlag{Name: "partition", Usage: "only the partition with this `NUMBER`"}, jsonFlag()},
				Action: checkpointVerify,
			},
			{
				Name:  "restore",
				Usage: "make a new data folder, a cluster of its own, from the newest checkpoints of another; it can be run at once",
				Flags: []cli.Flag{
					dataDirFlag(),
					&cli.StringFlag{Name: "to", Usage: "the new data `FOLDER`; must be absent or empty", Required: true},
					&cli.UintFlag{Name: "partition", Usage: "only the partition with this `NUMBER`; the others start empty"},
				},
				Action: checkpointRestore,
			},
		},
	}
}

func dataDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "data-dir", Value: node.DefaultOptions().DataDir, Usage: "data `FOLDER`"}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the answer as JSON"}
}

// jobPoll is how often a job is looked at while the command waits for it.
const jobPoll = 50 * time.Millisecond

func checkpointCreate(c *cli.Context) error {
	if c.IsSet("partition") == c.Bool("all") {
		return usagef("say either --partition NUMBER or --all")
	}
	request := node.CheckpointRequest{All: c.Bool("all")}
	if c.IsSet("partition") {
		id := uint32(c.Uint("partition"))
		request.Partition = &id
	}
	return ask(c, func(client *admin.Client) error {
		jobs, err := admin.Post[node.JobsAnswer](c.Context, client, "/v1/checkpoints", request)
		if err != nil {
			return err
		}
		var failed []error
		for _, job := range jobs.Jobs {
			if err := awaitJob(c.Context, client, job.ID); err != nil {
				failed = append(failed, err)
			}
		}
		a, err := admin.Get[node.CheckpointsAnswer](c.Context, client, "/v1/checkpoints")
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		if request.Partition != nil {
			a.Partitions = onlyPartition(a.Partitions, *request.Partition)
		}
		return errors.Join(append(failed, show(c, a, "PARTITION DECREE ENTRIES BYTES SECONDS ERROR", partitionCheckpointRows))...)
	})
}

func awaitJob(ctx context.Context, client *admin.Client, id uint64) error {
	for {
		job, err := admin.Get[node.JobStatus](ctx, client, fmt.Sprintf("/v1/jobs/%d", id))
		switch {
		case err != nil:
			return err
		case job.Done && job.Error != "":
			return errors.New(job.Error)
		case job.Done:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(jobPoll):
		}
	}
}

func onlyPartition(all []checkpoint.PartitionStatus, id uint32) []checkpoint.PartitionStatus {
	for _, s := range all {
		if s.Partition == id {
			return []checkpoint.PartitionStatus{s}
		}
	}
	return nil
}

func partitionCheckpointRows(a node.CheckpointsAnswer) [][]string {
	var rows [][]string
	for _, s := range a.Partitions {
		row := []string{number(s.Partition), "-", "-", "-", "-", s.LastError}
		if s.Last != nil {
			row = []string{number(s.Partition), number(s.Last.Decree), number(s.Last.Entries), size(s.Last.Bytes), fmt.Sprintf("%.3f", s.Last.Seconds), s.LastError}
		}
		rows = append(rows, row)
	}
	return rows
}

// withCheckpoints calls f with the checkpoints that the flags select.
func withCheckpoints(c *cli.Context, f func([]checkpoint.Info) error) error {
	if err := noArguments(c); err != nil {
		return err
	}
	infos, err := node.ListCheckpoints(c.String("data-dir"), partitionFlag(c))
	if err != nil {
		return err
	}
	return f(infos)
}

// partitionFlag is the partition asked for, nil for all.
func partitionFlag(c *cli.Context) *uint32 {
	if !c.IsSet("partition") {
		return nil
	}
	id := uint32(c.Uint("partition"))
	return &id
}

func checkpointRows(infos []checkpoint.Info) [][]string {
	var rows [][]string
	for _, info := range infos {
		row := []string{number(info.Partition), number(info.Decree), "-", "-", "-", "-", info.Problem}
		if m := info.Manifest; m != nil {
			parent := "full"
			if !m.Full() {
				parent = number(m.Parent)
			}
			row = []string{number(info.Partition), number(info.Decree), m.Created.Format(time.RFC3339), number(m.Entries), size(m.Bytes), parent, info.Problem}
		}
		rows = append(rows, row)
	}
	return rows
}

func checkpointVerify(c *cli.Context) error {
	return withCheckpoints(c, func(infos []checkpoint.Info) error {
		found, err := node.VerifyCheckpoints(c.Context, c.String("data-dir"), infos)
		return errors.Join(err, show(c, found, "PARTITION DECREE ENTRIES BYTES PROBLEM", verificationRows))
	})
}

func verificationRows(found []node.CheckpointVerification) [][]string {
	var rows [][]string
	for _, v := range found {
		problem := v.Problem
		if problem == "" {
			problem = "ok"
		}
		rows = append(rows, []string{number(v.Partition), number(v.Decree), number(v.Entries), size(v.Bytes), problem})
	}
	return rows
}

func checkpointRestore(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	states, err := node.RestoreCheckpoints(c.Context, c.String("data-dir"), c.String("to"), partitionFlag(c))
	for _, s := range states {
		fmt.Fprintf(c.App.Writer, "partition %d restored at decree %d, %d entries\n", s.Partition, s.Decree, s.Entries)
	}
	if err != nil {
		return err
	}
	id, err := node.ReadIdentity(c.String("to"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s is cluster %d; to cluster %d it can be a remote that has all of the above\n", c.String("to"), id.ClusterID, states[0].ClusterID)
	return nil
}
