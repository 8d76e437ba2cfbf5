package node

import (
	"testing"
	"time"

	"replicanode/threadpool"
)

// TestReturnsOfOneTaskAreOneDecision, so that a task of many slices does not hide the others.
func TestReturnsOfOneTaskAreOneDecision(t *testing.T) {
	var picks []threadpool.Decision
	at := time.Unix(1, 0)
	pick := func(id uint64, resumed bool, waited time.Duration) {
		at = at.Add(time.Millisecond)
		picks = append(picks, threadpool.Decision{At: at, ID: id, Resumed: resumed, Waited: waited})
	}
	pick(1, false, 0)
	pick(1, true, 5)
	pick(2, false, 0)
	for range 100 {
		pick(1, true, 1)
	}
	pick(3, false, 0)
	got := coalesce(picks)
	want := []struct {
		id     uint64
		times  int
		waited time.Duration
	}{{1, 1, 0}, {2, 1, 0}, {1, 101, 5}, {3, 1, 0}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		if got[i].ID != w.id || got[i].Times != w.times || got[i].Waited != w.waited {
			t.Errorf("%d: %+v, want %+v", i, got[i], w)
		}
	}
}
