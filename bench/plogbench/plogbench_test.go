package plogbench

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, Round: 20 * time.Millisecond, Rounds: 1, ReadBytes: 1 << 20, OpenBytes: 2 << 20}
	if testing.Short() {
		o.Only = []string{"append"}
	}
	rs, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range rs {
		t.Log(r)
		seen[r.Name] = true
		if r.Records == 0 || r.PerSecond <= 0 || r.Subject == "" {
			t.Errorf("nothing measured: %+v", r)
		}
	}
	for _, name := range Names() {
		if !seen[name] && !testing.Short() {
			t.Errorf("nothing for %s", name)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		`"nonsense"; there are append`: {Only: []string{"append", "nonsense"}},
		"round of -1s":                 {Round: -time.Second},
		"-2 rounds":                    {Rounds: -2},
		"logs of -1":                   {ReadBytes: -1},
	} {
		o.Dir = t.TempDir()
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
