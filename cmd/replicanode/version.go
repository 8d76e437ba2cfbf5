package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"replicanode/node"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "show the version, and the commit it was built from",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			b := node.ThisBuild()
			if c.Bool("json") {
				return show(c, b, "", nil)
			}
			_, err := fmt.Fprintf(c.App.Writer, "%s %s\n", c.App.Name, b)
			return err
		},
	}
}
