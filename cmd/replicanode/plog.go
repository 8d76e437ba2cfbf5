package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

func plogCommand() *cli.Command {
	return &cli.Command{
		Name:  "plog",
		Usage: "look into a private log, of a running or a stopped node; nothing is changed",
		Subcommands: []*cli.Command{
			{
				Name:      "verify",
				Usage:     "check every byte of a private log and name what is damaged",
				ArgsUsage: "DIR",
				Flags:     []cli.Flag{jsonFlag()},
				Action:    plogVerify,
			},
			{
				Name:      "dump",
				Usage:     "print the entries and hard states of a private log, in order",
				ArgsUsage: "DIR",
				Flags: []cli.Flag{
					&cli.Uint64Flag{Name: "from", Usage: "first `DECREE`, and hard states that commit it or later ones", Value: 1},
					&cli.Uint64Flag{Name: "to", Usage: "last `DECREE`, and hard states that commit it or earlier ones", DefaultText: "the last"},
					&cli.BoolFlag{Name: "json", Usage: "one JSON object a line"},
				},
				Action: plogDump,
			},
		},
	}
}

// logDir is the one argument of the plog commands.
func logDir(c *cli.Context) (string, error) {
	if c.NArg() != 1 {
		return "", usagef("%s wants one argument, the folder of a private log, for example data/partitions/0000/plog; see %s --help", c.Command.Name, c.Command.HelpName)
	}
	dir := c.Args().First()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("can't look into %s: %w", dir, err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "MANIFEST") || strings.HasSuffix(name, ".seg") {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%s is not the folder of a private log: it has neither a manifest nor a segment; give one like data/partitions/0000/plog", dir)
}

func plogVerify(c *cli.Context) error {
	dir, err := logDir(c)
	if err != nil {
		return err
	}
	report, err := plog.Verify(c.Context, dir)
	if err != nil {
		return err
	}
	if err := showReport(c, report); err != nil {
		return err
	}
	var damage []error
	for _, d := range report.Damage {
		damage = append(damage, d)
	}
	return errors.Join(damage...)
}

func showReport(c *cli.Context, r plog.Report) error {
	if !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "partition %d: decrees %d to %d, %d records, %s, term %d\n", r.Partition, r.First, r.Last, r.Records, size(r.Bytes), r.HardState.Term)
		if r.Journal > 0 {
			fmt.Fprintf(c.App.Writer, "%s of it read from the journal, which the next start brings back to the segments\n", size(r.Journal))
		}
		if r.Torn != nil {
			fmt.Fprintf(c.App.Writer, "torn tail in segment %d at offset %d: being written by a running node, never synced by a stopped one and cut when the log is opened\n", r.Torn.Segment, r.Torn.Offset)
		}
		if n := len(r.Gone); n > 0 {
			fmt.Fprintf(c.App.Writer, "%d segments, with decrees from %d on, were given up by the running node before they were read\n", n, r.Gone[0].First)
		}
	}
	return show(c, r, "SEGMENT FILE SEALED FIRST LAST BYTES FRAMES", func(r plog.Report) [][]string {
		var rows [][]string
		for _, s := range r.Segments {
			rows = append(rows, []string{number(s.Segment), s.File, fmt.Sprint(s.Sealed), number(s.First), number(s.Last), size(s.Bytes), number(s.Frames)})
		}
		return rows
	})
}

// dumped is one line of plog dump --json.
type dumped struct {
	Segment   uint64          `json:"segment"`
	Offset    int64           `json:"offset"`
	Decree    uint64          `json:"decree,omitempty"`
	Term      uint64          `json:"term,omitempty"`
	Type      uint8           `json:"type,omitempty"`
	Bytes     int             `json:"bytes,omitempty"`
	Mutation  string          `json:"mutation,omitempty"`
	Committed string          `json:"committed,omitempty"`
	Cluster   uint64          `json:"cluster,omitempty"`
	HardState *plog.HardState `json:"hard_state,omitempty"`
	Damage    string          `json:"damage,omitempty"`
}

func plogDump(c *cli.Context) error {
	if c.IsSet("to") && c.Uint64("to") < c.Uint64("from") {
		return usagef("--to %d is before --from %d", c.Uint64("to"), c.Uint64("from"))
	}
	dir, err := logDir(c)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(c.App.Writer)
	whole := !c.IsSet("from") && !c.IsSet("to")
	return plog.Dump(c.Context, dir, c.Uint64("from"), c.Uint64("to"), func(item plog.Item) error {
		if h := item.HardState; h != nil && !whole && (h.Commit < c.Uint64("from") || c.IsSet("to") && h.Commit > c.Uint64("to")) {
			return nil // of what comes before or after
		}
		d := describe(item)
		if c.Bool("json") {
			return enc.Encode(d)
		}
		_, err := fmt.Fprintln(c.App.Writer, d.line())
		return err
	})
}

// describe turns an item into a line; of a mutation only the header is read.
func describe(item plog.Item) dumped {
	d := dumped{Segment: item.Segment, Offset: item.Offset, HardState: item.HardState}
	if item.Damage != nil {
		d.Damage = item.Damage.Error()
	}
	e := item.Entry
	if e == nil {
		return d
	}
	d.Decree, d.Term, d.Type, d.Bytes = e.Index, e.Term, e.Type, len(e.Data)
	switch h, err := mutation.ParseHeader(e.Data); {
	case e.Type != 0:
		d.Mutation = "membership"
	case len(e.Data) == 0:
		d.Mutation = "none"
	case err != nil:
		d.Mutation = "unreadable: " + err.Error()
	default:
		d.Mutation, d.Cluster, d.Committed = h.Kind.String(), h.Cluster, h.Timestamp.Time().UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	return d
}

func (d dumped) line() string {
	place := fmt.Sprintf("%d:%-10d", d.Segment, d.Offset)
	switch {
	case d.Damage != "":
		return place + " DAMAGED " + d.Damage
	case d.HardState != nil:
		return fmt.Sprintf("%s hard state term %d vote %d commit %d", place, d.HardState.Term, d.HardState.Vote, d.HardState.Commit)
	}
	return fmt.Sprintf("%s decree %d term %d %s %d bytes %s", place, d.Decree, d.Term, d.Mutation, d.Bytes, d.Committed)
}
