package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
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
		return append([]string{"run", "--data-dir", fresh, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--peer", "127.0.0.1:0", "--log-level", "error"}, args...)
	}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown command", []string{"rum"}, exitUsage, []string{`"rum"`}},
		{"unknown subcommand", []string{"dup", "lost"}, exitUsage, []string{`"lost"`}},
		{"unknown flag", run("--partition", "8"), exitUsage, []string{"-partition"}},
		{"stray word", run("now"), exitUsage, []string{`"now"`}},
		{"not a number", run("--workers", "many"), exitUsage, []string{"workers", "many"}},
		{"no partitions", run("--partitions", "0"), exitUsage, []string{"--partitions", "0"}},
		{"explicit zero", run("--workers", "0"), exitUsage, []string{"--workers", "0"}},
		{"bad level", run("--task-priority", "checkpoint=urgent"), exitUsage, []string{"--task-priority", "urgent"}},
		{"bad remote", run("--duplicate-to", "backup"), exitUsage, []string{"--duplicate-to", "name=host:port"}},
		{"bad log level", run("--log-level", "loud"), exitUsage, []string{"--log-level", "loud"}},
		{"beyond loopback", run("--listen", "0.0.0.0:0"), exitUsage, []string{"--listen 0.0.0.0:0", "--requirepass"}},
		{"port in use", run("--admin", busy.Addr().String()), exitUsage, []string{"--admin " + busy.Addr().String(), "in use"}},
		{"foreign folder", append(run(), "--data-dir", foreign), exitFailed, []string{foreign, "letter.txt"}},
		{"no node", []string{"status", "--admin", busy.Addr().String(), "--timeout", "1s"}, exitUsage, []string{"timeout"}},
		{"no folder", []string{"checkpoint", "list", "--data-dir", fresh}, exitFailed, []string{fresh}},
		{"what to checkpoint", []string{"checkpoint", "create"}, exitUsage, []string{"--partition", "--all"}},
		{"no such policy", []string{"bench", "dup", "--policies", "best"}, exitUsage, []string{"best", "common"}},
		{"bad list", []string{"bench", "dup", "--qps", "8000,fast"}, exitUsage, []string{"--qps", "fast"}},
		{"bad ratio", []string{"bench", "kv", "--ratio", "1"}, exitUsage, []string{"ratio"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, stderr := command(t, tc.args...)
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
