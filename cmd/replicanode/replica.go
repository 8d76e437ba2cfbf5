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
					if _, err := node.ReadIdentity(c.String("data-dir")); err != nil {
						return err
					}
					folders, err := node.Dropped(c.String("data-dir")).List()
					if err != nil {
						return err
					}
					return show(c, list(folders), "NAME PARTITION KIND DROPPED STATE", folderRows)
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
	return withFolder(c, func(f *node.Folder, d *gc.Dropped) error {
		if err := f.AllowEmpty(partition); err != nil {
			return err
		}
		name, err := d.Drop(partition, kind)
		if errors.Is(err, os.ErrNotExist) && partition < f.Identity.Partitions {
			fmt.Fprintf(c.App.Writer, "partition %d has no folder; it starts empty\n", partition)
			return nil
		}
		if err == nil {
			fmt.Fprintf(c.App.Writer, "dropped as %s; bring it back with replicanode gc undelete %s --data-dir %s\n", name, name, c.String("data-dir"))
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
			err := withFolder(c, func(f *node.Folder, d *gc.Dropped) error { return undelete(f, d, name) })
			return undeleteHint(err, c.String("data-dir"), name)
		},
	}
}

// undeleteHint says what to do about a refusal.
func undeleteHint(err error, dir, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gc.ErrNoFolder):
		return fmt.Errorf("%w; replicanode gc list --data-dir %s shows the names", err, dir)
	case errors.Is(err, gc.ErrInPlace):
		return fmt.Errorf("%w; put that one away first with replicanode replica drop --data-dir %s --partition N", err, dir)
	case errors.Is(err, gc.ErrDeleting):
		return fmt.Errorf("%w; parts of it are gone, so %s can't come back", err, name)
	}
	return err
}

// undelete puts a dropped replica back, which must be there from then on.
func undelete(f *node.Folder, d *gc.Dropped, name string) error {
	folders, err := d.List()
	if err != nil {
		return err
	}
	if err := d.Undelete(name); err != nil {
		return err
	}
	for _, folder := range folders {
		if folder.Name == name {
			return f.RequirePresent(folder.Partition)
		}
	}
	return nil
}

// withFolder calls f while the data folder is locked, so that no node runs on it.
func withFolder(c *cli.Context, f func(*node.Folder, *gc.Dropped) error) (err error) {
	dir := c.String("data-dir")
	if _, err := node.ReadIdentity(dir); err != nil {
		return err
	}
	folder, err := node.OpenFolder(dir, node.Identity{})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := folder.Close(); err == nil {
			err = cerr
		}
	}()
	return f(folder, node.Dropped(dir))
}

func folderRows(folders []gc.Folder) [][]string {
	var rows [][]string
	for _, f := range folders {
		rows = append(rows, []string{f.Name, number(f.Partition), string(f.Kind), f.Dropped.Format(time.RFC3339), folderState(f)})
	}
	return rows
}
