package plogbench

import (
	"context"
	"errors"
	"os"
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
	} else {
		o.Only = []string{"append", "appenders", "read_cached", "read_cold", "open"}
	}
	rs, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		t.Log(r)
		if r.Records == 0 || r.PerSecond <= 0 || r.Subject == "" {
			t.Errorf("nothing measured: %+v", r)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
