package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/gc"
	"replicanode/node"
)

func replicaCommand() *cli.Command {
	return &cli.Command{
		Name:  "replica",
		Usage: "drop replicas of a stopped node and bring them back",
		Subcommands: []*cli.Command{
			{
				Name:  "drop",
				Usage: "put a replica's folder away; gc_replicas removes it after the grace time, and the partition starts empty",
				Flags: []cli.Flag{dataDirFlag(), requiredPartition("`NUMBER` of the partition"),
					&cli.BoolFlag{Name: "failed", Usage: "it failed and somebody will want to look at it: it stays seven times as long"}},
				Action: replicaDrop,
			},
			{
				Name:  "list",
				Usage: "list the dropped replicas of a data folder",
				Flags: []cli.Flag{dataDirFlag(), jsonFlag()},
				Action: func(c *cli.Context) error {
					if err := noArguments(c); err != nil {
						return err
					}
					return listDropped(c)
				},
			},
			undeleteCommand(),
		},
	}
}

func requiredPartition(usage string) cli.Flag {
	f := partitionFlag(usage)
	f.Required = true
	return f
}

func replicaDrop(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	kind := gc.KindDropped
	if c.Bool("failed") {
		kind = gc.KindFailed
	}
	partition := *onePartition(c)
	return withFolders(c, func(f *node.Folders) error {
		name, err := f.Drop(partition, kind)
		if errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(c.App.Writer, "partition %d has no folder; it starts empty\n", partition)
			return nil
		}
		if err == nil {
			fmt.Fprintf(c.App.Writer, "dropped as %s; bring it back with replicanode gc undelete %s %s\n", name, name, dirFlags(dataDirs(c)))
		}
		return err
	})
}

// undeleteCommand is part of gc, where such folders are listed, and of replica, where they are made.
func undeleteCommand() *cli.Command {
	return &cli.Command{
		Name:      "undelete",
		Usage:     "put a dropped replica of a stopped node back in its place",
		ArgsUsage: "NAME",
		Flags:     []cli.Flag{dataDirFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("undelete wants one argument, a name that replicanode gc list shows")
			}
			name := c.Args().First()
			var partition uint32
			if err := withFolders(c, func(f *node.Folders) (err error) {
				partition, err = f.Undelete(name)
				return err
			}); err != nil {
				return undeleteHint(err, dirFlags(dataDirs(c)), name)
			}
			fmt.Fprintf(c.App.Writer, "%s is back in its place, as partition %d\n"+
				"checkpoints made since it was dropped are of another life and count as newer until there is one of this life:\n"+
				"the node makes it soon after its start, or now: replicanode checkpoint create %s --partition %d\n", name, partition, dirFlags(dataDirs(c)), partition)
			return nil
		},
	}
}

// undeleteHint says what to do about a refusal.
func undeleteHint(err error, dirs, name string) error {
	switch {
	case errors.Is(err, gc.ErrNoFolder):
		return fmt.Errorf("%w; replicanode gc list %s shows the names", err, dirs)
	case errors.Is(err, gc.ErrInPlace):
		return fmt.Errorf("%w; put that one away first with replicanode replica drop %s --partition N", err, dirs)
	case errors.Is(err, gc.ErrDeleting):
		return fmt.Errorf("%w; parts of it are gone, so %s can't come back", err, name)
	}
	return err
}

// withFolders calls f while the data folders are locked, so that no node runs on them.
func withFolders(c *cli.Context, f func(*node.Folders) error) (err error) {
	folders, err := node.OpenExisting(dataDirs(c))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folders.Close()) }()
	return f(folders)
}

func folderRows(folders []node.DroppedFolder) [][]string {
	var rows [][]string
	for _, f := range folders {
		rows = append(rows, []string{f.Name, number(f.Partition), string(f.Kind), f.Dropped.Format(time.RFC3339), folderState(f.Folder), f.DataDir})
	}
	return rows
}
