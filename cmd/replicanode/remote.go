package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"replicanode/node"
	"replicanode/server/admin"
)

// remoteFlags are the flags of every command that asks a running node.
func remoteFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "admin", Value: node.DefaultOptions().Admin, Usage: "`HOST:PORT` of the node's --admin", EnvVars: []string{"REPLICANODE_ADMIN"}, Action: checkAdmin},
		&cli.StringFlag{Name: "password", Usage: "the node's `PASSWORD`, see its --requirepass", EnvVars: []string{"REPLICANODE_PASSWORD"}},
		&cli.BoolFlag{Name: "json", Usage: "print the answer as JSON, see docs/api.md"},
	}, more...)
}

// checkAdmin refuses what cannot be an address before anybody is asked.
func checkAdmin(_ *cli.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
		return &node.FlagError{Flag: "admin", Value: addr, Reason: "must be HOST:PORT, for example " + node.DefaultOptions().Admin}
	}
	return nil
}

// list is an answer in JSON even when there is nothing in it.
func list[E any](items []E) []E {
	if items == nil {
		return []E{}
	}
	return items
}

// ask calls f with a client for the node that the flags name.
func ask(c *cli.Context, f func(client *admin.Client) error) error {
	if err := noArguments(c); err != nil {
		return err
	}
	client := admin.NewClient(c.String("admin"), c.String("password"))
	defer client.Close()
	return f(client)
}

// show prints an answer as JSON, or as the table that rows makes of it.
func show[T any](c *cli.Context, answer T, header string, rows func(T) [][]string) error {
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(answer)
	}
	return table(c.App.Writer, header, rows(answer))
}

// table prints rows under a header whose columns are separated by spaces.
func table(w io.Writer, header string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(strings.Fields(header), "\t"))
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}
