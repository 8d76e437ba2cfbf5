package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if line := os.Getenv(childArgs); line != "" {
		var args []string
		if err := json.Unmarshal([]byte(line), &args); err != nil {
			panic(err)
		}
		os.Exit(execute(context.Background(), args, os.Stdout, os.Stderr))
	}
	// ants starts two goroutines of its default pool when it is loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// command runs one command line in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), append([]string{"replicanode"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestBadCommandLinesAreOneLineThatNamesTheMistake(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter.txt"), []byte("dear"), 0o644); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "data")
	run := func(args ...string) []string {
		return append([]string{"run", "--data-dir", fresh, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--peer", "127.0.0.1:0"}, args...)
	}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown command", []string{"rum"}, exitUsage, []string{`"rum"`}},
		{"unknown subcommand", []string{"dup", "lost"}, exitUsage, []string{`"lost"`}},
		{"unknown flag", run("--partition", "8"), exitUsage, []string{"--partition,", "--partitions?", "replicanode run --help"}},
		{"stray word", run("now"), exitUsage, []string{`"now"; see replicanode run --help`}},
		{"not a number", run("--workers", "many"), exitUsage, []string{"workers", "many"}},
		{"no partitions", run("--partitions", "0"), exitUsage, []string{"--partitions", "0"}},
		{"explicit zero", run("--workers", "0"), exitUsage, []string{"--workers", "0"}},
		{"no value", run("--workers"), exitUsage, []string{"--workers", "value"}},
		{"flag as a value", run("--task", "--adaptive"), exitUsage, []string{"--task", "value"}},
		{"flag before the command", []string{"--json", "status"}, exitUsage, []string{"--json"}},
		{"not a duration", run("--slice", "soon"), exitUsage, []string{`--slice "soon"`, "500ms"}},
		{"not a size", run("--segment-bytes", "4M"), exitUsage, []string{`--segment-bytes "4M"`, "4MiB"}},
		{"negative wait", run("--max-wait", "-3s"), exitUsage, []string{`--max-wait "-3s"`, "off"}},
		{"negative period", run("--checkpoint-period", "-1h"), exitUsage, []string{`--checkpoint-period "-1h"`, "off"}},
		{"negative share", run("--low-share", "-0.1"), exitUsage, []string{`--low-share "-0.1"`, "off"}},
		{"negative tail", run("--dup-tail-bytes", "-1"), exitUsage, []string{`--dup-tail-bytes "-1"`, "off"}},
		{"negative grace", run("--drop-grace", "-1s"), exitUsage, []string{"--drop-grace -1s"}},
		{"no grace", run("--drop-grace", "0"), exitUsage, []string{"--drop-grace 0"}},
		{"negative slice", run("--slice", "-1ms"), exitUsage, []string{"--slice -1ms"}},
		{"negative timeout", run("--shutdown-timeout", "-1s"), exitUsage, []string{"--shutdown-timeout -1s"}},
		{"negative size", run("--memtable-bytes", "-1"), exitUsage, []string{`--memtable-bytes "-1"`}},
		{"share that is no number", run("--low-share", "NaN"), exitUsage, []string{`--low-share "NaN"`}},
		{"endless share", run("--low-share", "+Inf"), exitUsage, []string{"--low-share +Inf"}},
		{"LOW may take all slots", run("--workers", "4", "--low-limit", "4"), exitUsage, []string{"--low-limit 4", "--workers 4"}},
		{"share above a half", run("--low-share", "0.6"), exitUsage, []string{"--low-share 0.6"}},
		{"write target", run("--write-target", "1us"), exitUsage, []string{"--write-target 1µs"}},
		{"commands larger than a log takes", run("--max-command-size", "1GiB"), exitUsage, []string{"--max-command-size"}},
		{"duplication to itself", run("--peer", "127.0.0.1:22099", "--duplicate-to", "b=127.0.0.1:22099"), exitUsage, []string{"--duplicate-to b=127.0.0.1:22099", "own"}},
		{"duplication to itself by name", run("--peer", "127.0.0.1:22099", "--duplicate-to", "b=localhost:22099"), exitUsage, []string{"--duplicate-to b=localhost:22099", "own"}},
		{"duplication to no name", run("--duplicate-to", "=127.0.0.1:22099"), exitUsage, []string{"--duplicate-to =127.0.0.1:22099"}},
		{"one TLS file", run("--peer-tls-cert", "cert.pem"), exitUsage, []string{"--peer-tls-", "together"}},
		{"no TLS files", run("--peer-tls-cert", "none.pem", "--peer-tls-key", "none.pem", "--peer-tls-ca", "none.pem"), exitUsage, []string{"--peer-tls-cert none.pem", "no such file"}},
		{"missing flag", []string{"checkpoint", "restore"}, exitUsage, []string{"--to is missing", "replicanode checkpoint restore --help"}},
		{"missing partition", []string{"replica", "drop"}, exitUsage, []string{"--partition is missing", "replicanode replica drop --help"}},
		{"partition that does not fit", []string{"replica", "drop", "--data-dir", foreign, "--partition", "4294967296"}, exitUsage, []string{"--partition 4294967296", "1023"}},
		{"checkpoint of a partition that does not fit", []string{"checkpoint", "verify", "--data-dir", foreign, "--partition", "4294967297"}, exitUsage, []string{"--partition 4294967297", "1023"}},
		{"stray word after a partition", []string{"replica", "drop", "--data-dir", foreign, "--partition", "0", "1"}, exitUsage, []string{`"1"; see replicanode replica drop --help`}},
		{"keys that do not fit", []string{"bench", "kv", "--keys", "4294967297"}, exitUsage, []string{"--keys 4294967297"}},
		{"admin without a port", []string{"status", "--admin", "localhost"}, exitUsage, []string{"--admin localhost", "HOST:PORT"}},
		{"admin as a URL", []string{"task", "list", "--admin", "http://127.0.0.1:9180"}, exitUsage, []string{"--admin http://127.0.0.1:9180", "HOST:PORT"}},
		{"admin of no port", []string{"dup", "list", "--admin", "127.0.0.1:99999"}, exitUsage, []string{"--admin 127.0.0.1:99999", "HOST:PORT"}},
		{"nodes nowhere", []string{"bench", "dup", "--dir", fresh}, exitUsage, []string{"--dir " + fresh, "is not a folder"}},
		{"disk nowhere", []string{"bench", "plog", "--dir", fresh}, exitUsage, []string{"--dir " + fresh, "is not a folder"}},
		{"no such measurement", []string{"bench", "sched", "--only", "nothing"}, exitUsage, []string{`bench sched: no measurement "nothing"; there are backlog, `}},
		{"missing remote", []string{"dup", "pause"}, exitUsage, []string{"replicanode dup"}},
		{"bad level", run("--task-priority", "checkpoint=urgent"), exitUsage, []string{"--task-priority checkpoint=urgent: the level must be low, common or high"}},
		{"level of nobody", run("--task-priority", "nosuch=low"), exitUsage, []string{`--task-priority nosuch=low: unknown task code "nosuch"`, "checkpoint", "load_private_log"}},
		{"task field", run("--task", "checkpoint.max_running=many"), exitUsage, []string{"--task checkpoint.max_running=many: max_running must be a whole number"}},
		{"bad fail mode", run("--duplicate-to", "b=127.0.0.1:22098", "--dup-fail-mode", "fast"), exitUsage, []string{"--dup-fail-mode fast", "skip"}},
		{"fail mode of nobody", run("--duplicate-to", "b=127.0.0.1:22098", "--dup-fail-mode", "c=skip"), exitUsage, []string{"--dup-fail-mode c=skip", "name"}},
		{"bad remote", run("--duplicate-to", "backup"), exitUsage, []string{"--duplicate-to", "name=host:port"}},
		{"bad log level", run("--log-level", "loud"), exitUsage, []string{"--log-level", "loud"}},
		{"beyond loopback", run("--listen", "0.0.0.0:0"), exitUsage, []string{"--listen 0.0.0.0:0", "--requirepass"}},
		{"port in use", run("--admin", busy.Addr().String()), exitUsage, []string{"--admin " + busy.Addr().String(), "in use"}},
		{"foreign folder", append(run(), "--data-dir", foreign), exitFailed, []string{"--data-dir " + foreign + ": ", "letter.txt", "give"}},
		{"listen in use", run("--listen", busy.Addr().String()), exitUsage, []string{"--listen " + busy.Addr().String(), "in use"}},
		{"peer in use", run("--peer", busy.Addr().String()), exitUsage, []string{"--peer " + busy.Addr().String(), "in use"}},
		{"unwritable folder", append(run(), "--data-dir", "/proc/nothing"), exitFailed, []string{"--data-dir /proc/nothing: ", "give"}},
		{"folder that is a file", append(run(), "--data-dir", filepath.Join(foreign, "letter.txt")), exitFailed, []string{"--data-dir " + foreign, "is not a folder", "give"}},
		{"no node", []string{"status", "--admin", "127.0.0.1:1"}, exitFailed, []string{"127.0.0.1:1"}},
		{"unknown flag of a subcommand", []string{"dup", "list", "--timeout", "1s"}, exitUsage, []string{"--timeout", "replicanode dup list --help"}},
		{"no folder", []string{"checkpoint", "list", "--data-dir", fresh}, exitFailed, []string{fresh}},
		{"what to checkpoint", []string{"checkpoint", "create"}, exitUsage, []string{"--partition", "--all"}},
		{"figures nobody can write", []string{"bench", "kv", "--json", "/proc/nothing/figures.json", "--addr", "127.0.0.1:1"}, exitUsage, []string{"--json /proc/nothing/figures.json"}},
		{"figures into a folder", []string{"bench", "simulate", "--json", foreign}, exitUsage, []string{"--json " + foreign}},
		{"nobody to drive", []string{"bench", "kv", "--addr", "127.0.0.1:1"}, exitFailed, []string{"127.0.0.1:1", "refused"}},
		{"no log there", []string{"plog", "verify", foreign}, exitFailed, []string{foreign, "not the folder of a private log"}},
		{"no folder to dump", []string{"plog", "dump", fresh}, exitFailed, []string{fresh, "no such file"}},
		{"dump backwards", []string{"plog", "dump", foreign, "--from", "5", "--to", "4"}, exitUsage, []string{"--to 4"}},
		{"no such policy", []string{"bench", "dup", "--policies", "best"}, exitUsage, []string{"best", "common"}},
		{"bad list", []string{"bench", "dup", "--qps", "8000,fast"}, exitUsage, []string{"--qps", "fast"}},
		{"bad ratio", []string{"bench", "kv", "--ratio", "1"}, exitUsage, []string{"ratio"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := command(t, tc.args...)
			if stdout != "" {
				t.Errorf("printed %q", stdout)
			}
			if code != tc.code || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d with %q; want %d and one line", code, stderr, tc.code)
			}
			for _, want := range tc.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not name %q", stderr, want)
				}
			}
		})
	}
	if _, err := os.Stat(fresh); err == nil {
		t.Error("a refused command line made the data folder")
	}
}

// TestFlagsMayFollowArguments of any command.
func TestFlagsMayFollowArguments(t *testing.T) {
	for _, tc := range []struct{ args, want []string }{
		{[]string{"plog", "verify", "DIR", "--json"}, []string{"plog", "verify", "--json", "--", "DIR"}},
		{[]string{"plog", "dump", "--from", "3", "DIR", "--to=4"}, []string{"plog", "dump", "--from", "3", "--to=4", "--", "DIR"}},
		{[]string{"dup", "pause", "backup", "--admin", "a:1"}, []string{"dup", "pause", "--admin", "a:1", "--", "backup"}},
		{[]string{"task", "set", "gc_logs", "--json", "priority=high"}, []string{"task", "set", "--json", "--", "gc_logs", "priority=high"}},
		{[]string{"plog", "verify", "--", "--json"}, []string{"plog", "verify", "--", "--json"}},
		{[]string{"bench", "kv", "--qps", "-1"}, []string{"bench", "kv", "--qps", "-1", "--"}},
		{[]string{"--version"}, []string{"version", "--"}},
	} {
		in, err := arrange(newApp(io.Discard, io.Discard), append([]string{"replicanode"}, tc.args...))
		if err != nil || in.help || !slices.Equal(in.args[1:], tc.want) {
			t.Errorf("%q: %q %v, want %q", tc.args, in.args, err, tc.want)
		}
	}
	code, _, stderr := command(t, "plog", "verify", filepath.Join(t.TempDir(), "none"), "--json")
	if code != exitFailed || !strings.Contains(stderr, "none") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestVersionSaysWhatWasBuilt(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}, {"-v"}} {
		code, stdout, stderr := command(t, args...)
		if code != 0 || stderr != "" || !strings.HasPrefix(stdout, "replicanode ") || strings.Contains(stdout, "(devel)") || !strings.Contains(stdout, runtime.Version()) {
			t.Errorf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
	if code, stdout, _ := command(t, "version", "--json"); code != 0 || !strings.Contains(stdout, `"version"`) {
		t.Errorf("JSON: exit code %d, %q", code, stdout)
	}
}

// everyCommand calls f with each command that does something, and its path.
func everyCommand(f func(path []string, c *cli.Command)) {
	var walk func(path []string, commands []*cli.Command)
	walk = func(path []string, commands []*cli.Command) {
		for _, c := range commands {
			at := append(slices.Clone(path), c.Name)
			if len(c.Subcommands) > 0 {
				walk(at, c.Subcommands)
			} else {
				f(at, c)
			}
		}
	}
	walk(nil, newApp(io.Discard, io.Discard).Commands)
}

func TestHelpOfEveryCommandIsReadable(t *testing.T) {
	everyCommand(func(path []string, c *cli.Command) {
		code, stdout, stderr := command(t, append(slices.Clone(path), "--help")...)
		if code != 0 || stderr != "" {
			t.Errorf("%v: exit code %d, %q", path, code, stderr)
		}
		for _, f := range c.Flags {
			if !strings.Contains(stdout, "  --"+f.Names()[0]) {
				t.Errorf("%v: help does not name --%s", path, f.Names()[0])
			}
		}
		for _, line := range strings.Split(stdout, "\n") {
			if strings.Count(line, "(default:") > 1 || strings.Contains(line, "(default: 0)") || strings.HasPrefix(line, " ") && len([]rune(line)) > helpWidth {
				t.Errorf("%v: %q", path, line)
			}
		}
		if _, again, _ := command(t, append([]string{"help"}, path...)...); again != stdout {
			t.Errorf("help %v prints something else", path)
		}
	})
}

func TestHelpShowsEveryCommand(t *testing.T) {
	code, stdout, stderr := command(t, "--help")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	for _, c := range newApp(os.Stdout, os.Stderr).Commands {
		if !strings.Contains(stdout, c.Name) {
			t.Errorf("help does not name %s", c.Name)
		}
	}
}
