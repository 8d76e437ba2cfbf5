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
	err := newApp(stdout, stderr).RunContext(ctx, args)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "replicanode: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	var usage *usageError
	var flag *node.FlagError
	if errors.As(err, &usage) || errors.As(err, &flag) {
		return exitUsage
	}
	return exitFailed
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:            "replicanode",
		Usage:           "a storage replica node whose background work runs in the right order",
		Version:         version(),
		Writer:          stdout,
		ErrWriter:       stderr,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    onUsageError,
		Action:          unknownCommand,
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
		},
	}
	for _, c := range app.Commands {
		finish(c)
	}
	return app
}

// finish gives a command and those below it the same manners: one-line usage errors, and no silent acceptance of what is unknown.
func finish(c *cli.Command) {
	c.OnUsageError = onUsageError
	c.HideHelpCommand = true
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = unknownCommand
	}
	for _, sub := range c.Subcommands {
		finish(sub)
	}
}

// usageError is a command line that can't be understood.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	return usagef("%v; see %s --help", err, c.App.HelpName)
}

func unknownCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("unknown command %q; see %s --help", c.Args().First(), c.Command.HelpName)
	}
	return cli.ShowSubcommandHelp(c)
}

// noArguments refuses stray words, which are mostly a flag whose dashes were forgotten.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("unexpected argument %q; see %s --help", c.Args().First(), c.Command.HelpName)
	}
	return nil
}
