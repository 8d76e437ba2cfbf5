package replica

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// TestOperationsOfOneMutationAllTakeEffectOnTheRemote: commands that wait together become one mutation with one stamp, so a
// mutation may write a key many times. The remote must end where the source did, not where the first write left it.
func TestOperationsOfOneMutationAllTakeEffectOnTheRemote(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := newFakeClock()
		var nodes [2]*testNode
		for i := range nodes {
			o := testOptions(t, testDir(t))
			o.ClusterID, o.Clock = uint64(i+1), clock.now
			nodes[i] = startNode(t, o)
			defer nodes[i].stop(t)
		}
		source, remote := nodes[0].Partition(0), nodes[1].Partition(0)
		ship := new(shipper)
		defer source.Subscribe(ship)()
		for range rapid.IntRange(1, 5).Draw(rt, "mutations") {
			_ = try(source, func(tx *Tx) {
				for range rapid.IntRange(1, 12).Draw(rt, "operations") {
					drawOp(rt).run(tx)
				}
			})
		}
		b := ship.batch(1, 0, 1000)
		if confirmed, err := applyBatch(remote, b); err != nil || confirmed != b.Last {
			rt.Fatalf("confirmed %d of %d: %v", confirmed, b.Last, err)
		}
		if a, b := visible(t, source), visible(t, remote); !maps.Equal(a, b) {
			rt.Fatalf("the source shows %v\nthe remote %v", a, b)
		}
	})
}
