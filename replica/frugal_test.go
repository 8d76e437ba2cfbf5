package replica

import (
	"testing"
)

// TestLogsAreFrugalWhileThereIsAReason: all of them, also those opened meanwhile, until the last reason is gone.
func TestLogsAreFrugalWhileThereIsAReason(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.Partitions = 2
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	expect := func(what string, want bool) {
		t.Helper()
		for _, p := range n.Partitions() {
			if got := p.Log().Stats().Frugal; got != want {
				t.Errorf("%s: partition %d is frugal: %v", what, p.id, got)
			}
		}
	}
	expect("at first", false)
	n.SetFrugal(0, true)
	expect("told so", true)
	n.disks[0].space.frugal.set(n.Partition(0), true)
	n.SetFrugal(0, false)
	expect("a partition has no room", true)
	n.Partition(1).Log().SetFrugal(false)
	n.disks[0].space.frugal.opened(n.Partition(1))
	expect("opened meanwhile", true)
	n.disks[0].space.frugal.set(n.Partition(0), false)
	expect("in the end", false)
}
