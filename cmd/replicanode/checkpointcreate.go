package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/checkpoint"
	"replicanode/node"
	"replicanode/server/admin"
)

func checkpointCreate(c *cli.Context) error {
	if c.IsSet("partition") == c.Bool("all") {
		return usagef("say either --partition NUMBER or --all")
	}
	request := node.CheckpointRequest{All: c.Bool("all"), Partition: onePartition(c), Full: c.Bool("full")}
	bar := newCheckpointBar(c.App.ErrWriter, request)
	defer bar.close()
	watch, done, err := watchStore(c, bar)
	if err != nil {
		return err
	}
	defer done()
	return askOwner(c, func(client *admin.Client) error {
		if err := sameStore(c, client); err != nil {
			return err
		}
		jobs, err := admin.Post[node.JobsAnswer](c.Context, client, "/v1/checkpoints", request)
		if err != nil {
			return err
		}
		err = awaitJobs(c.Context, client, jobs, func() {
			if a, err := admin.Get[node.CheckpointsAnswer](c.Context, client, "/v1/checkpoints"); err == nil {
				watch.show(a)
			}
		})
		a, gerr := admin.Get[node.CheckpointsAnswer](context.WithoutCancel(c.Context), client, "/v1/checkpoints")
		if gerr != nil {
			return cmp.Or(err, gerr) // a node that went away says the same twice
		}
		return showCreated(c, bar, request, a, err)
	}, func() error {
		a, err := node.CreateCheckpoints(c.Context, node.Options{DataDirs: dataDirs(c), CheckpointStore: c.String("checkpoint-store")}, request.Partition, request.Full, watch.show)
		if a.Partitions == nil {
			return err
		}
		return showCreated(c, bar, request, a, err)
	})
}

// showCreated prints how it went. What failed is in err, with the partitions' numbers.
func showCreated(c *cli.Context, bar *checkpointBar, request node.CheckpointRequest, a node.CheckpointsAnswer, err error) error {
	bar.close()
	if request.Partition != nil {
		a.Partitions = ofPartition(a.Partitions, *request.Partition)
	}
	if err == nil && request.All && a.Node.Last != nil && !c.Bool("json") {
		last := a.Node.Last
		fmt.Fprintf(c.App.Writer, "checkpoint %s of the node: %d partitions, %d entries, %s in %.3f s\n",
			last.Name, last.Partitions, last.Entries, size(last.Bytes), last.Seconds)
	}
	return errors.Join(show(c, a, "PARTITION DECREE ENTRIES BYTES SECONDS ERROR", partitionCheckpointRows), err)
}

// jobPoll is how often a job is looked at while the command waits for it.
const jobPoll = 50 * time.Millisecond

// awaitJobs waits for the end of all jobs, and calls tick now and then. The error joins theirs.
func awaitJobs(ctx context.Context, client *admin.Client, jobs node.JobsAnswer, tick func()) error {
	var failed []error
	for _, job := range jobs.Jobs {
		if _, err := awaitJob(ctx, client, job.ID, tick); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func awaitJob(ctx context.Context, client *admin.Client, id uint64, tick func()) (node.JobStatus, error) {
	for {
		job, err := admin.Get[node.JobStatus](ctx, client, fmt.Sprintf("/v1/jobs/%d", id))
		switch {
		case err != nil:
			return job, err
		case job.Done && job.Error != "":
			return job, errors.New(job.Error)
		case job.Done:
			return job, nil
		}
		tick()
		select {
		case <-ctx.Done():
			return job, fmt.Errorf("%w; the node goes on with job %d", context.Cause(ctx), id)
		case <-time.After(jobPoll):
		}
	}
}

func ofPartition(all []checkpoint.PartitionStatus, id uint32) []checkpoint.PartitionStatus {
	for _, s := range all {
		if s.Partition == id {
			return []checkpoint.PartitionStatus{s}
		}
	}
	return []checkpoint.PartitionStatus{}
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
