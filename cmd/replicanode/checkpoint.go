package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/checkpoint"
	"replicanode/node"
	"replicanode/replica"
	"replicanode/server/admin"
)

func checkpointCommand() *cli.Command {
	return &cli.Command{
		Name:  "checkpoint",
		Usage: "make, list, verify, restore and remove checkpoints of partitions and of the whole node",
		Subcommands: []*cli.Command{
			{
				Name:  "create",
				Usage: "make a checkpoint of one partition or of the whole node and wait for it",
				Description: "With --data-dir the node that runs on that folder is asked, or the folder is opened when none does;\n" +
					"without it the node at --admin is asked. A checkpoint of the whole node is complete or absent.\n" +
					"What a node makes first after its start is full, and so is what is made of a stopped node.",
				Flags: remoteFlags(
					ownerDirFlag(),
					storeFlag(), storeTimeoutFlag(),
					partitionFlag("make one of the partition with this `NUMBER`"),
					&cli.BoolFlag{Name: "all", Usage: "make one of the whole node: all partitions and a manifest that names them"},
					&cli.BoolFlag{Name: "full", Usage: "build on no earlier checkpoint; where nothing has changed since a full one, that is it"},
				),
				Action: checkpointCreate,
			},
			{
				Name:  "list",
				Usage: "list the checkpoints of a running or a stopped node",
				Description: "With --data-dir or --checkpoint-store it lists what is there, whether a node runs or not;\n" +
					"without them the node at --admin is asked where its checkpoints are.",
				Flags: remoteFlags(ownerDirFlag(), storeFlag(), storeTimeoutFlag(), partitionFlag("only the partition with this `NUMBER`"),
					&cli.BoolFlag{Name: "nodes", Usage: "list the checkpoints of the whole node"}),
				Action: checkpointList,
			},
			{
				Name:  "verify",
				Usage: "read every byte of the checkpoints of a running or a stopped node and name what is damaged",
				Description: "With --data-dir or --checkpoint-store it reads what is there, whether a node runs or not;\n" +
					"without them the node at --admin is asked where its checkpoints are.",
				Flags:  remoteFlags(ownerDirFlag(), storeFlag(), storeTimeoutFlag(), partitionFlag("only the partition with this `NUMBER`")),
				Action: checkpointVerify,
			},
			{
				Name:  "restore",
				Usage: "make a new data folder, a cluster of its own, from checkpoints of another; it can be run at once",
				Flags: []cli.Flag{
					dataDirFlag(), storeFlag(), storeTimeoutFlag(),
					&cli.StringFlag{Name: "to", Usage: "the new data `FOLDER`; must be absent or empty, and outside of --data-dir", Required: true},
					partitionFlag("only the partition with this `NUMBER`; the others start empty"),
					&cli.Uint64Flag{Name: "decree", DefaultText: "newest", Usage: "the --partition's checkpoint at this `DECREE`"},
					&cli.StringFlag{Name: "node", DefaultText: "newest of each partition", Usage: "the checkpoint of the whole node with this `NAME`, or latest"},
					&cli.BoolFlag{Name: "partial", Usage: "let partitions without a usable checkpoint start empty"},
					&cli.IntFlag{Name: "parallel", DefaultText: "number of processors", Usage: "partitions restored at once"},
				},
				Action: checkpointRestore,
			},
			{
				Name:  "prune",
				Usage: "remove the checkpoints that the retention lets go",
				Description: "With --data-dir the node that runs on that folder is asked, or the folder is changed directly when none does;\n" +
					"without it the node at --admin is asked. The newest good checkpoint of a partition stays, what another one\n" +
					"builds on, and what a checkpoint of the whole node names.",
				Flags: remoteFlags(
					ownerDirFlag(),
					storeFlag(), storeTimeoutFlag(),
					partitionFlag("only the partition with this `NUMBER`"),
					&cli.IntFlag{Name: "keep", DefaultText: "the node's --checkpoint-keep", Usage: "how many of the newest stay, at least 1"},
					&cli.DurationFlag{Name: "keep-for", Usage: "younger ones stay, too"},
					&cli.BoolFlag{Name: "dry-run", Usage: "show what would be removed; needs --data-dir"},
				),
				Action: checkpointPrune,
			},
		},
	}
}

func dataDirFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "data-dir", DefaultText: node.DefaultOptions().DataDir, Usage: "data `FOLDER`; repeatable"}
}

// ownerDirFlag is for commands that ask the node at --admin when it is not given.
func ownerDirFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "data-dir", Usage: "data `FOLDER` of a running or stopped node; repeatable"}
}

// dataDirs are the data folders that the flags name, or the default one.
func dataDirs(c *cli.Context) []string {
	if dirs := c.StringSlice("data-dir"); len(dirs) > 0 {
		return dirs
	}
	return []string{node.DefaultOptions().DataDir}
}

// dirFlags repeats the flags that name data folders, for another command line.
func dirFlags(dirs []string) string {
	return "--data-dir " + strings.Join(dirs, " --data-dir ")
}

func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "checkpoint-store", DefaultText: "checkpoints in the (first) data folder", Usage: "the node's --checkpoint-store, a `PLACE`; a running node knows its own", EnvVars: []string{"REPLICANODE_CHECKPOINT_STORE"}}
}

func storeTimeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "store-timeout", Value: time.Minute, Usage: "give up when the store of checkpoints has answered nothing for so long; a running node tries on by itself"}
}

func partitionFlag(usage string) *cli.UintFlag {
	return &cli.UintFlag{Name: "partition", Usage: usage, Action: atMost("partition", replica.MaxPartitions-1)}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the answer as JSON"}
}

// onePartition is the partition asked for, nil for all.
func onePartition(c *cli.Context) *uint32 {
	if !c.IsSet("partition") {
		return nil
	}
	id := uint32(c.Uint("partition"))
	return &id
}

// askOwner calls live with a client for the node that serves the data folder of the flags, or stopped when no node runs on it.
// Without --data-dir it is the node at --admin.
func askOwner(c *cli.Context, live func(client *admin.Client) error, stopped func() error) error {
	if err := noArguments(c); err != nil {
		return err
	}
	addr := c.String("admin")
	if dirs := c.StringSlice("data-dir"); len(dirs) > 0 {
		at, running, err := node.LiveNode(dirs...)
		switch {
		case err != nil:
			return err
		case !running:
			return stopped()
		}
		addr = at
	}
	client := admin.NewClient(addr, c.String("password"))
	defer client.Close()
	return live(client)
}

// withStore calls f with the store that the flags name.
func withStore(c *cli.Context, f func(store *checkpoint.Store) error) error {
	if err := noArguments(c); err != nil {
		return err
	}
	return withStoreAt(c, c.String("checkpoint-store"), f)
}

// withStoreAt is withStore for a place; "": the data folders of the flags.
func withStoreAt(c *cli.Context, place string, f func(store *checkpoint.Store) error) error {
	store, closeStore, err := node.OpenCheckpointStore(dataDirs(c), place)
	if err != nil {
		return err
	}
	watch, done, err := watchStore(c, &checkpointBar{})
	if err != nil {
		return errors.Join(err, closeStore())
	}
	defer done()
	err = watch.during(func() error { return f(store) }, func() node.StoreStatus { return node.StatusOfStore(store) })
	return errors.Join(err, closeStore())
}

// withOwnStore is withStore, but that without --data-dir and --checkpoint-store it is the store of the node at --admin.
func withOwnStore(c *cli.Context, f func(store *checkpoint.Store) error) error {
	if len(c.StringSlice("data-dir")) > 0 || c.String("checkpoint-store") != "" {
		return withStore(c, f)
	}
	var place string
	if err := ask(c, func(client *admin.Client) error {
		a, err := admin.Get[node.CheckpointsAnswer](c.Context, client, "/v1/checkpoints")
		place = a.Store.Place
		return err
	}); err != nil {
		return fmt.Errorf("%w; to look without asking a node, give its --data-dir or --checkpoint-store", err)
	}
	if strings.Contains(place, "://") {
		return fmt.Errorf("the node at %s keeps its checkpoints in %s; give its --checkpoint-store, which says how to reach that", c.String("admin"), place)
	}
	return withStoreAt(c, place, f)
}

func checkpointList(c *cli.Context) error {
	return withOwnStore(c, func(store *checkpoint.Store) error { return listFrom(c, store) })
}

func listFrom(c *cli.Context, store *checkpoint.Store) error {
	if c.Bool("nodes") {
		if c.IsSet("partition") {
			return usagef("say either --partition NUMBER or --nodes")
		}
		infos, err := store.Nodes(c.Context)
		if err != nil {
			return err
		}
		if len(infos) == 0 && !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "%s has no checkpoints of the whole node\n", store.Root())
			return nil
		}
		return show(c, list(infos), "NAME CREATED PARTITIONS ENTRIES BYTES PROBLEM", nodeCheckpointRows)
	}
	infos, err := node.ListCheckpoints(c.Context, store, onePartition(c))
	if err != nil {
		return err
	}
	if len(infos) == 0 && !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "%s has no checkpoints\n", store.Root())
		return nil
	}
	return show(c, infos, "PARTITION DECREE CREATED ENTRIES BYTES PARENT PROBLEM", checkpointRows)
}

func nodeCheckpointRows(infos []checkpoint.NodeInfo) [][]string {
	var rows [][]string
	for _, info := range infos {
		row := []string{info.Name, "-", "-", "-", "-", info.Problem}
		if m := info.Manifest; m != nil {
			row = []string{info.Name, m.Created.Format(time.RFC3339), number(m.Partitions), number(m.Entries), size(m.Bytes), info.Problem}
		}
		rows = append(rows, row)
	}
	return rows
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
	return withOwnStore(c, func(store *checkpoint.Store) error { return verifyFrom(c, store) })
}

func verifyFrom(c *cli.Context, store *checkpoint.Store) error {
	infos, err := node.ListCheckpoints(c.Context, store, onePartition(c))
	if err != nil {
		return err
	}
	if len(infos) == 0 {
		return fmt.Errorf("%s has no checkpoints, so there is nothing to verify; make some with replicanode checkpoint create", store.Root())
	}
	found, err := node.VerifyCheckpoints(c.Context, store, infos)
	if onePartition(c) == nil {
		err = errors.Join(err, node.VerifyNodeCheckpoints(c.Context, store))
	}
	return errors.Join(show(c, found, "PARTITION DECREE ENTRIES BYTES PROBLEM", verificationRows), err)
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
	return withStore(c, func(store *checkpoint.Store) error { return restoreFrom(c, store) })
}

func restoreFrom(c *cli.Context, store *checkpoint.Store) error {
	if c.IsSet("parallel") && c.Int("parallel") < 1 {
		return &node.FlagError{Flag: "parallel", Value: c.String("parallel"), Reason: "must be at least 1"}
	}
	if c.IsSet("decree") && (!c.IsSet("partition") || c.String("node") != "" || c.Uint64("decree") == 0) {
		return usagef("--decree says which checkpoint of one --partition, from 1, and goes without --node")
	}
	begun := time.Now()
	sources := dataDirs(c)
	if c.String("checkpoint-store") != "" && !c.IsSet("data-dir") {
		sources = nil // what the checkpoints say of themselves is enough
	}
	o := node.RestoreOptions{
		Store: store, Sources: sources, To: c.String("to"), Node: c.String("node"), Partition: onePartition(c), Decree: c.Uint64("decree"),
		Partial: c.Bool("partial"), Parallel: c.Int("parallel"),
	}
	states, err := node.RestoreCheckpoints(c.Context, o)
	if err != nil {
		return err
	}
	took := time.Since(begun)
	newer, err := node.PassedBy(c.Context, o, states)
	if err != nil {
		newer = append(newer, fmt.Errorf("look for newer ones: %w", err))
	}
	for _, err := range newer {
		fmt.Fprintf(c.App.ErrWriter, "replicanode: an older checkpoint than the newest is restored: %v\n", err)
	}
	for _, s := range states {
		fmt.Fprintf(c.App.Writer, "partition %d restored at decree %d, %d entries\n", s.Partition, s.Decree, s.Entries)
	}
	fmt.Fprintf(c.App.Writer, "%d partitions restored into %s in %.1f s\n", len(states), c.String("to"), took.Seconds())
	id, err := node.ReadIdentity(c.String("to"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s is cluster %d; to cluster %d it can be a remote that has all of the above\n", c.String("to"), id.ClusterID, states[0].ClusterID)
	return nil
}

func checkpointPrune(c *cli.Context) error {
	if c.IsSet("keep") && c.Int("keep") < 1 {
		return &node.FlagError{Flag: "keep", Value: fmt.Sprint(c.Int("keep")), Reason: "must be at least 1: the newest good checkpoint stays"}
	}
	if c.Duration("keep-for") < 0 {
		return &node.FlagError{Flag: "keep-for", Value: c.Duration("keep-for").String(), Reason: "must not be negative"}
	}
	retention := checkpoint.Retention{KeepLast: c.Int("keep"), KeepFor: c.Duration("keep-for")}
	if !c.IsSet("keep") {
		retention.KeepLast = node.DefaultOptions().CheckpointKeep
	}
	if c.Bool("dry-run") {
		return showObsolete(c, retention)
	}
	watch, done, err := watchStore(c, &checkpointBar{})
	if err != nil {
		return err
	}
	defer done()
	return askOwner(c, func(client *admin.Client) error {
		if err := sameStore(c, client); err != nil {
			return err
		}
		jobs, err := admin.Post[node.JobsAnswer](c.Context, client, "/v1/checkpoints/prune", node.PruneRequest{
			Partition: onePartition(c), Keep: c.Int("keep"), KeepForSeconds: c.Duration("keep-for").Seconds()})
		if err != nil {
			return err
		}
		job, err := awaitJob(c.Context, client, jobs.Jobs[0].ID, func() {
			if a, err := admin.Get[node.CheckpointsAnswer](c.Context, client, "/v1/checkpoints"); err == nil {
				watch.show(a)
			}
		})
		if job.Pruned == nil {
			return err
		}
		return errors.Join(showPruned(c, *job.Pruned), err)
	}, func() error {
		return withStore(c, func(store *checkpoint.Store) error {
			pruned, err := node.PruneStopped(c.Context, dataDirs(c), store, onePartition(c), retention)
			if err != nil && len(pruned.Nodes)+len(pruned.Checkpoints) == 0 {
				return err
			}
			return errors.Join(showPruned(c, pruned), err)
		})
	})
}

// showObsolete is prune without removing anything.
func showObsolete(c *cli.Context, r checkpoint.Retention) error {
	if len(c.StringSlice("data-dir")) == 0 {
		return usagef("--dry-run needs --data-dir")
	}
	return withStore(c, func(store *checkpoint.Store) error {
		pruned, err := node.ObsoleteCheckpoints(c.Context, store, onePartition(c), r)
		if err != nil {
			return err
		}
		return showPruned(c, pruned)
	})
}

func showPruned(c *cli.Context, pruned checkpoint.Pruned) error {
	if len(pruned.Nodes)+len(pruned.Checkpoints) == 0 && !c.Bool("json") {
		fmt.Fprintln(c.App.Writer, "nothing to remove")
		return nil
	}
	pruned.Sort()
	return show(c, pruned, "PARTITION CHECKPOINT", func(p checkpoint.Pruned) [][]string {
		var rows [][]string
		for _, name := range p.Nodes {
			rows = append(rows, []string{"node", name})
		}
		for _, r := range p.Checkpoints {
			rows = append(rows, []string{number(r.Partition), number(r.Decree)})
		}
		return rows
	})
}
