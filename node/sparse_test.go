package node

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWarningsOfAllPartitionsAboutOneRemoteAreOneLine in a while, which counts the others.
func TestWarningsOfAllPartitionsAboutOneRemoteAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		root := slog.New(newSparseHandler(log.logger().Handler(), "remote", 10*time.Second))
		for range 5 {
			for _, remote := range []string{"east", "west"} {
				for partition := range 8 {
					root.With("partition", partition, "remote", remote).Warn("interrupted", "error", "refused")
				}
			}
			root.Info("progress")
			time.Sleep(3 * time.Second)
		}
		// At 0 s and at 12 s a line each for both remotes; at 12 s with the 7 + 3×8 others before it.
		got := log.String()
		if n := strings.Count(got, "interrupted"); n != 4 {
			t.Errorf("%d warnings, want 4:\n%s", n, got)
		}
		if n := strings.Count(got, "suppressed=31"); n != 2 {
			t.Errorf("%d counts of 31 suppressed, want 2:\n%s", n, got)
		}
		if n := strings.Count(got, "progress"); n != 5 {
			t.Errorf("%d other lines, want 5:\n%s", n, got)
		}
	})
}
