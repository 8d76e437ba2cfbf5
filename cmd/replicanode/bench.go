package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/bench/crash"
	"replicanode/bench/dup"
	"replicanode/bench/kv"
	"replicanode/bench/load"
	"replicanode/bench/report"
	"replicanode/node"
)

func benchCommand() *cli.Command {
	c := &cli.Command{
		Name:        "bench",
		Usage:       "measure nodes and the parts of one",
		Subcommands: []*cli.Command{benchDup(), benchKV(), benchCrash(), benchSched(), benchPlog(), benchCheckpoint(), benchSimulate()},
	}
	for _, sub := range c.Subcommands {
		sub.Before = checkJSONFile
	}
	return c
}

// checkJSONFile refuses a file that the figures could not be written to, before anything is measured.
func checkJSONFile(c *cli.Context) error {
	name := c.String("json")
	if name == "" {
		return nil
	}
	_, statErr := os.Stat(name)
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return &node.FlagError{Flag: "json", Value: name, Reason: fmt.Sprintf("can't be written: %v", err)}
	}
	err = file.Close()
	if errors.Is(statErr, os.ErrNotExist) {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// jsonFileFlag is the flag of every benchmark that says where its figures go.
func jsonFileFlag() cli.Flag {
	return &cli.StringFlag{Name: "json", Usage: "write the figures to `FILE` as JSON"}
}

// benchResult is what every benchmark returns: a table for people.
type benchResult interface{ Write(w io.Writer) error }

// finishBench prints the table and writes document, also when the run failed half-way: what was measured is shown.
func finishBench(c *cli.Context, result benchResult, document any, runErr error) error {
	errs := []error{runErr, result.Write(c.App.Writer)}
	if name := c.String("json"); name != "" {
		errs = append(errs, report.WriteJSON(name, document))
	}
	return errors.Join(errs...)
}

func benchDup() *cli.Command {
	var d dup.Options
	d.EnsureDefaults()
	return &cli.Command{
		Name:  "dup",
		Usage: "the headline experiment: what priorities do to the freshness of a backup, with real nodes over loopback",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "qps", Value: joinNumbers(d.QPS), Usage: "writes a second, a comma-separated `LIST`"},
			&cli.StringFlag{Name: "policies", Value: strings.Join(d.Policies, ","), Usage: "a comma-separated `LIST` of idle, low, parity, common, adaptive"},
			&cli.IntFlag{Name: "partitions", Value: d.Partitions, Usage: "partitions of each node"},
			&cli.IntFlag{Name: "workers", Value: d.Workers, Usage: "slots of each node's long pool"},
			&cli.IntFlag{Name: "connections", Value: d.Connections, Usage: "client connections"},
			&cli.UintFlag{Name: "keys", Value: uint(d.Keys), Action: atMost("keys", math.MaxUint32), Usage: "keys of the data set"},
			&cli.IntFlag{Name: "value-size", Value: d.ValueSize, Usage: "`BYTES` of a value"},
			&cli.Int64Flag{Name: "batch-bytes", Usage: "largest shipped batch, `BYTES` (default: the node's)"},
			&cli.Int64Flag{Name: "tail-bytes", Value: d.TailBytes, Usage: "in-memory tail per partition, `BYTES`; 0 loads everything from the log"},
			&cli.Float64Flag{Name: "seconds", Value: d.Seconds, Usage: "length of the steady part"},
			&cli.Float64Flag{Name: "away-seconds", Value: d.AwaySeconds, Usage: "how long the backup is away"},
			&cli.Float64Flag{Name: "catchup-seconds", Value: d.CatchUpSeconds, Usage: "how long to wait for the backup to catch up"},
			&cli.Float64Flag{Name: "failover-seconds", Value: d.FailoverSeconds, Usage: "load before the primary is killed"},
			&cli.Float64Flag{Name: "throttle-seconds", Value: d.ThrottleSeconds, Usage: "how long policy adaptive runs with a slow backup"},
			&cli.Uint64Flag{Name: "seed", Value: d.Seed, Usage: "fixes schedule, keys and values"},
			&cli.StringFlag{Name: "dir", Action: existingFolder, Usage: "`FOLDER` for the nodes' data (default: the system's temporary folder)"},
			jsonFileFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			qps, err := numbers(c.String("qps"))
			if err != nil {
				return &node.FlagError{Flag: "qps", Value: c.String("qps"), Reason: err.Error()}
			}
			o := dup.Options{
				Dir: c.String("dir"), QPS: qps, Policies: strings.Split(c.String("policies"), ","), Partitions: c.Int("partitions"),
				Workers: c.Int("workers"), Connections: c.Int("connections"), Keys: uint32(c.Uint("keys")), ValueSize: c.Int("value-size"),
				BatchBytes: c.Int64("batch-bytes"), TailBytes: c.Int64("tail-bytes"), Seconds: c.Float64("seconds"), AwaySeconds: c.Float64("away-seconds"),
				CatchUpSeconds: c.Float64("catchup-seconds"), FailoverSeconds: c.Float64("failover-seconds"),
				ThrottleSeconds: c.Float64("throttle-seconds"), Seed: c.Uint64("seed"),
			}
			if err := refuseZero(c, "partitions", "workers", "connections", "keys", "value-size", "seconds", "away-seconds", "catchup-seconds", "failover-seconds", "throttle-seconds"); err != nil {
				return err
			}
			o.EnsureDefaults()
			if err := o.Validate(); err != nil {
				return usagef("bench dup: %v", err)
			}
			rep, err := dup.Run(c.Context, o, c.App.ErrWriter)
			return finishBench(c, rep, rep, err)
		},
	}
}

func benchKV() *cli.Command {
	var d kv.Options
	d.EnsureDefaults()
	return &cli.Command{
		Name:  "kv",
		Usage: "drive any RESP server with reads and writes, at full speed or at a fixed rate",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Value: d.Addr, Usage: "`ADDRESS` of the server"},
			&cli.StringFlag{Name: "password", Usage: "sent by AUTH", EnvVars: []string{"REPLICANODE_PASSWORD"}},
			&cli.IntFlag{Name: "clients", Value: d.Clients, Usage: "connections"},
			&cli.IntFlag{Name: "pipeline", Value: d.Pipeline, Usage: "requests a client sends before it waits (closed loop)"},
			&cli.Uint64Flag{Name: "requests", Usage: "end after this many (default: by --seconds)"},
			&cli.Float64Flag{Name: "seconds", Value: d.Seconds, Usage: "end after this long"},
			&cli.Float64Flag{Name: "qps", Usage: "fixed rate, requests a second; 0 goes as fast as the server (closed loop)"},
			&cli.StringFlag{Name: "ratio", Value: d.Ratio, Usage: "`READS:WRITES`"},
			&cli.StringFlag{Name: "dist", Value: string(d.Dist), Usage: "how keys are drawn: uniform or zipfian"},
			&cli.UintFlag{Name: "keys", Value: uint(d.Keys), Action: atMost("keys", math.MaxUint32), Usage: "number of keys"},
			&cli.IntFlag{Name: "value-size", Value: d.ValueSize, Usage: "`BYTES` of a value"},
			&cli.BoolFlag{Name: "preload", Usage: "write every key once before the run"},
			&cli.Uint64Flag{Name: "seed", Usage: "fixes schedule, keys and values"},
			jsonFileFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			o := kv.Options{
				Addr: c.String("addr"), Password: c.String("password"), Clients: c.Int("clients"), Pipeline: c.Int("pipeline"),
				Requests: c.Uint64("requests"), QPS: c.Float64("qps"), Ratio: c.String("ratio"), Dist: load.Distribution(c.String("dist")),
				Keys: uint32(c.Uint("keys")), ValueSize: c.Int("value-size"), Preload: c.Bool("preload"), Seed: c.Uint64("seed"),
			}
			if !c.IsSet("requests") || c.IsSet("seconds") {
				o.Seconds = c.Float64("seconds")
			}
			if err := refuseZero(c, "clients", "pipeline", "requests", "seconds", "keys", "value-size"); err != nil {
				return err
			}
			o.EnsureDefaults()
			if err := o.Validate(); err != nil {
				return usagef("bench kv: %v", err)
			}
			result, err := kv.Run(c.Context, o, c.App.ErrWriter)
			if err != nil && result.Seconds == 0 {
				return err // there is nothing to show
			}
			return finishBench(c, result, result.Document(), err)
		},
	}
}

func benchCrash() *cli.Command {
	var d crash.Options
	d.EnsureDefaults()
	return &cli.Command{
		Name:  "crash",
		Usage: "kill nodes under load again and again, and check that nothing acknowledged is lost and nothing applied twice",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "rounds", Value: d.Rounds, Usage: "how many times somebody dies"},
			&cli.IntFlag{Name: "partitions", Value: d.Partitions, Usage: "partitions of each node"},
			&cli.IntFlag{Name: "clients", Value: d.Clients, Usage: "connections that write at once"},
			&cli.IntFlag{Name: "keys", Value: d.Keys, Usage: "keys of each client"},
			&cli.IntFlag{Name: "value-size", Value: d.ValueSize, Usage: "largest value, `BYTES`"},
			&cli.DurationFlag{Name: "max-load", Value: d.MaxLoad, Usage: "longest load before a death"},
			&cli.DurationFlag{Name: "catchup-timeout", Value: d.CatchUpTimeout, Usage: "how long the backup may take to catch up"},
			&cli.Uint64Flag{Name: "seed", Value: uint64(time.Now().UnixNano() % 1e9), Usage: "fixes who dies when and what is written", DefaultText: "from the clock"},
			&cli.StringFlag{Name: "dir", Usage: "`FOLDER` for the nodes' data, kept (default: a temporary one, kept only after a violation)"},
			jsonFileFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			o := crash.Options{
				Dir: c.String("dir"), Rounds: c.Int("rounds"), Partitions: c.Int("partitions"), Clients: c.Int("clients"), Keys: c.Int("keys"),
				ValueSize: c.Int("value-size"), MaxLoad: c.Duration("max-load"), CatchUpTimeout: c.Duration("catchup-timeout"), Seed: c.Uint64("seed"),
			}
			o.MinLoad = min(d.MinLoad, o.MaxLoad)
			if err := refuseZero(c, "rounds", "partitions", "clients", "keys", "value-size", "max-load", "catchup-timeout"); err != nil {
				return err
			}
			o.EnsureDefaults()
			if err := o.Validate(); err != nil {
				return usagef("bench crash: %v", err)
			}
			rep, err := crash.Run(c.Context, o, c.App.ErrWriter)
			return finishBench(c, rep, rep.Document(), err)
		},
	}
}

// numbers reads a comma-separated list.
func numbers(list string) ([]float64, error) {
	var out []float64
	for _, item := range strings.Split(list, ",") {
		v, err := strconv.ParseFloat(strings.TrimSpace(item), 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number; give numbers separated by commas", item)
		}
		out = append(out, v)
	}
	return out, nil
}

func joinNumbers(list []float64) string {
	items := make([]string, len(list))
	for i, v := range list {
		items[i] = strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strings.Join(items, ",")
}
