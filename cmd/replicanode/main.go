// Command replicanode runs a storage replica node, asks and steers a running one, and measures it.
//
// There is one file per subcommand: it turns flags into options and answers into tables, and holds nothing else. Errors are one
// line on standard error. The exit code is 2 when the command line was wrong (nothing was done then), 1 when the work failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"replicanode/node"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command line and returns the process's exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "replicanode: %s\n", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
	var usage *usageError
	var flag *node.FlagError
	if errors.As(err, &usage) || errors.As(err, &flag) {
		return exitUsage
	}
	return exitFailed
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	app := newApp(stdout, stderr)
	in, err := arrange(app, args)
	if err != nil {
		return err
	}
	if in.help {
		return showHelp(stdout, app, in)
	}
	return app.RunContext(ctx, in.args)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:        "replicanode",
		Usage:       "a storage replica node whose background work runs in the right order",
		Writer:      stdout,
		ErrWriter:   stderr,
		HideHelp:    true,
		HideVersion: true,
		// A remote's addresses are separated by commas within one value.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              onUsageError,
		Commands: []*cli.Command{
			runCommand(),
			statusCommand(),
			dupCommand(),
			taskCommand(),
			checkpointCommand(),
			gcCommand(),
			replicaCommand(),
			plogCommand(),
			benchCommand(),
			versionCommand(),
		},
	}
	for _, c := range app.Commands {
		finish(c, app.Name)
		c.HelpName = "" // the app puts its own name before it
	}
	return app
}

// finish gives a command and those below it the same manners.
func finish(c *cli.Command, path string) {
	c.HelpName = path + " " + c.Name
	c.OnUsageError = onUsageError
	c.HideHelp = true
	for _, sub := range c.Subcommands {
		finish(sub, c.HelpName)
	}
}

// usageError is a command line that can't be understood.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	if c.Command == nil {
		return usagef("%v", err)
	}
	if named := valueError(c.Command, err); named != err {
		return named
	}
	return usagef("%v; see %s --help", err, c.Command.HelpName)
}

// noArguments refuses stray words, which are mostly a flag whose dashes were forgotten.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("unexpected argument %q; see %s --help", c.Args().First(), c.Command.HelpName)
	}
	return nil
}
