package replica

import (
	"testing"
)

func TestWritesAreReadAndSurviveRestart(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	p := n.Partition(0)
	for i := range 100 {
		set(t, p, key(i), key(i)+"!")
	}
	if v, ok := get(t, p, key(7)); !ok || v != key(7)+"!" {
		t.Fatalf("%q %v", v, ok)
	}
	n.stop(t)
	n = startNode(t, o)
	defer n.stop(t)
	p = n.Partition(0)
	for i := range 100 {
		if v, ok := get(t, p, key(i)); !ok || v != key(i)+"!" {
			t.Fatalf("%q %v", v, ok)
		}
	}
}
