package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/node"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:   "run",
		Usage:  "serve Redis clients from a data folder until SIGINT or SIGTERM",
		Flags:  runFlags(),
		Action: run,
	}
}

// unset marks a duration or share that the user turned off: options use 0 for "the default" and a negative value for "off".
const unset = -1

func runFlags() []cli.Flag {
	d := node.DefaultOptions()
	return []cli.Flag{
		&cli.StringFlag{Name: "data-dir", Value: d.DataDir, Usage: "data `FOLDER`; made when it does not exist"},
		&cli.UintFlag{Name: "partitions", Usage: "number of partitions of a new data folder (default: 8)"},
		&cli.Uint64Flag{Name: "cluster-id", Usage: "`ID` of this cluster in duplication (default: random for a new folder)"},
		&cli.StringFlag{Name: "listen", Value: d.Listen, Usage: "`ADDRESS` for Redis clients"},
		&cli.StringFlag{Name: "admin", Value: d.Admin, Usage: "`ADDRESS` for operators (HTTP)"},
		&cli.StringFlag{Name: "peer", Value: d.Peer, Usage: "`ADDRESS` for other nodes (gRPC)"},
		&cli.StringFlag{Name: "requirepass", Usage: "`PASSWORD` that clients and operators must give", EnvVars: []string{"REPLICANODE_PASSWORD"}},
		&cli.StringFlag{Name: "peer-tls-cert", Usage: "PEM `FILE` with this node's certificate for mutual TLS between nodes"},
		&cli.StringFlag{Name: "peer-tls-key", Usage: "PEM `FILE` with the key of --peer-tls-cert"},
		&cli.StringFlag{Name: "peer-tls-ca", Usage: "PEM `FILE` with the authority that signed the peers' certificates"},
		&cli.IntFlag{Name: "max-clients", Value: d.MaxClients, Usage: "client connections at once"},
		&cli.IntFlag{Name: "max-value-size", Value: d.MaxValueBytes, Usage: "largest value, `BYTES`"},

		&cli.IntFlag{Name: "workers", Value: d.Workers, Usage: "slots of the long pool"},
		&cli.IntFlag{Name: "low-limit", Usage: "slots that LOW tasks may hold at once (default: one less than --workers)"},
		&cli.IntFlag{Name: "max-queued", Value: d.MaxQueued, Usage: "tasks that may wait in each queue of the long pool"},
		&cli.DurationFlag{Name: "max-wait", Value: d.MaxWait, Usage: "a task that waits longer is treated one priority higher; 0 turns this off"},
		&cli.Float64Flag{Name: "low-share", Value: d.LowShare, Usage: "share of slot time that LOW is sure of, 0 to 0.5; 0 turns this off"},
		&cli.DurationFlag{Name: "slice", Value: d.Slice, Usage: "how long a task runs before it looks whether more urgent work waits"},
		&cli.StringSliceFlag{Name: "task-priority", Usage: "`CODE=LEVEL` overrides a task code's priority (low, common, high); repeatable"},
		&cli.StringSliceFlag{Name: "task", Usage: "`CODE.FIELD=VALUE` overrides a field of a task code's spec (see task list --json); repeatable"},
		&cli.BoolFlag{Name: "adaptive", Usage: "let priorities and LOW's limits follow the load; see task adaptive"},
		&cli.DurationFlag{Name: "write-target", Value: d.WriteTarget, Usage: "p99 of clients' writes above which maintenance shrinks"},

		&cli.StringSliceFlag{Name: "duplicate-to", Usage: "`NAME=HOST:PORT` of a remote cluster's peer address to ship every mutation to; repeatable"},
		&cli.Int64Flag{Name: "dup-tail-bytes", Value: d.DupTailBytes, Usage: "recent mutations kept in memory per partition, `BYTES`; 0 loads everything from the log"},
		&cli.Int64Flag{Name: "dup-batch-bytes", Value: d.DupBatchBytes, Usage: "largest batch shipped at once, `BYTES`"},
		&cli.Int64Flag{Name: "dup-window-bytes", Value: d.DupWindowBytes, Usage: "shipped but not yet confirmed, per partition and remote, `BYTES`"},

		&cli.DurationFlag{Name: "checkpoint-period", Value: d.CheckpointPeriod, Usage: "time between checkpoints of a partition; 0 turns periodic ones off"},
		&cli.IntFlag{Name: "checkpoint-keep", Value: d.CheckpointKeep, Usage: "checkpoints kept per partition"},
		&cli.DurationFlag{Name: "drop-grace", Value: d.DropGrace, Usage: "how long the folder of a dropped replica is kept"},
		&cli.Int64Flag{Name: "segment-bytes", Value: d.SegmentBytes, Usage: "size of a private log segment, `BYTES`"},
		&cli.Int64Flag{Name: "memtable-bytes", Value: d.MemtableBytes, Usage: "size of a partition's memtable, `BYTES`"},

		&cli.Uint64Flag{Name: "disk-low-bytes", Usage: "free `BYTES` below which GC hurries (default: a tenth of the disk, at most 20 GiB)"},
		&cli.Uint64Flag{Name: "disk-critical-bytes", Usage: "free `BYTES` below which writes are refused (default: 3 % of the disk, at most 4 GiB)"},

		&cli.DurationFlag{Name: "start-timeout", Value: d.StartTimeout, Usage: "deadline of each start-up phase; opening replicas gets ten times as long"},
		&cli.DurationFlag{Name: "shutdown-timeout", Value: 8 * time.Second, Usage: "how long stopping may take"},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "debug, info, warn or error"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "text or json"},
	}
}

func run(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	opts, err := nodeOptions(c)
	if err != nil {
		return err
	}
	n, err := node.New(opts)
	if err != nil {
		return err
	}
	startErr := n.Start(c.Context)
	if startErr == nil {
		<-c.Context.Done()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), c.Duration("shutdown-timeout"))
	defer cancel()
	stopErr := n.Stop(ctx)
	if errors.Is(startErr, context.Canceled) && c.Context.Err() != nil {
		startErr = nil // told to stop while starting: not a failure
	}
	return errors.Join(startErr, stopErr)
}

// nodeOptions turns the flags of run into options.
func nodeOptions(c *cli.Context) (node.Options, error) {
	logger, err := newLogger(c.App.ErrWriter, c.String("log-level"), c.String("log-format"))
	if err != nil {
		return node.Options{}, err
	}
	if c.IsSet("partitions") && c.Uint("partitions") == 0 {
		return node.Options{}, &node.FlagError{Flag: "partitions", Value: "0", Reason: "must be between 1 and 1024"}
	}
	if c.Uint("partitions") > 1024 {
		return node.Options{}, &node.FlagError{Flag: "partitions", Value: fmt.Sprint(c.Uint("partitions")), Reason: "must be between 1 and 1024"}
	}
	o := node.Options{
		DataDir:     c.String("data-dir"),
		Partitions:  uint32(c.Uint("partitions")),
		ClusterID:   c.Uint64("cluster-id"),
		Listen:      c.String("listen"),
		Admin:       c.String("admin"),
		Peer:        c.String("peer"),
		RequirePass: c.String("requirepass"),
		PeerTLSCert: c.String("peer-tls-cert"), PeerTLSKey: c.String("peer-tls-key"), PeerTLSCA: c.String("peer-tls-ca"),
		MaxClients:       c.Int("max-clients"),
		MaxValueBytes:    c.Int("max-value-size"),
		Workers:          c.Int("workers"),
		LowLimit:         c.Int("low-limit"),
		MaxQueued:        c.Int("max-queued"),
		MaxWait:          zeroIsOff(c.Duration("max-wait")),
		LowShare:         zeroIsOff(c.Float64("low-share")),
		Slice:            c.Duration("slice"),
		TaskPriority:     c.StringSlice("task-priority"),
		Task:             c.StringSlice("task"),
		Adaptive:         c.Bool("adaptive"),
		DupTailBytes:     zeroIsOff(c.Int64("dup-tail-bytes")),
		DupBatchBytes:    c.Int64("dup-batch-bytes"),
		DupWindowBytes:   c.Int64("dup-window-bytes"),
		CheckpointPeriod: zeroIsOff(c.Duration("checkpoint-period")),
		CheckpointKeep:   c.Int("checkpoint-keep"),
		DropGrace:        c.Duration("drop-grace"),
		SegmentBytes:     c.Int64("segment-bytes"),
		MemtableBytes:    c.Int64("memtable-bytes"),
		DiskLowBytes:     c.Uint64("disk-low-bytes"), DiskCriticalBytes: c.Uint64("disk-critical-bytes"),
		StartTimeout: c.Duration("start-timeout"),
		Logger:       logger,
	}
	if err := refuseZero(c, "data-dir", "listen", "admin", "peer", "max-clients", "max-value-size", "workers", "low-limit", "max-queued", "slice", "write-target",
		"dup-batch-bytes", "dup-window-bytes", "checkpoint-keep", "segment-bytes", "memtable-bytes", "start-timeout", "shutdown-timeout"); err != nil {
		return node.Options{}, err
	}
	for _, flag := range c.StringSlice("duplicate-to") {
		remote, err := node.ParseRemote(flag)
		if err != nil {
			return node.Options{}, err
		}
		o.DuplicateTo = append(o.DuplicateTo, remote)
	}
	return o, nil
}

// zeroIsOff maps the flag's "0 turns it off" to the options' "negative is off".
func zeroIsOff[T int64 | float64 | time.Duration](v T) T {
	if v == 0 {
		return unset
	}
	return v
}

// refuseZero refuses an explicit zero or empty value where the options would quietly take their default instead.
func refuseZero(c *cli.Context, flags ...string) error {
	for _, name := range flags {
		if !c.IsSet(name) {
			continue
		}
		switch value := fmt.Sprint(c.Value(name)); value {
		case "", "0", "0s":
			return &node.FlagError{Flag: name, Value: fmt.Sprintf("%q", value), Reason: "must not be empty or zero"}
		}
	}
	return nil
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, &node.FlagError{Flag: "log-level", Value: level, Reason: "must be debug, info, warn or error"}
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, &node.FlagError{Flag: "log-format", Value: format, Reason: "must be text or json"}
}
