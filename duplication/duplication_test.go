package duplication

import (
	"testing"
)

func TestShipsFromTheTail(t *testing.T) {
	h := newHarness(t, 2, Options{})
	h.startReceiver()
	h.startSource()
	for range 20 {
		for _, p := range h.partitions {
			p.write(50, 100)
		}
	}
	for i, p := range h.partitions {
		h.targets[i].mustEqual(t, p)
	}
}

func TestShipsFromTheLog(t *testing.T) {
	h := newHarness(t, 2, Options{TailBytes: -1, BatchBytes: 4096})
	h.partitions[0].write(500, 100)
	h.startReceiver()
	h.startSource()
	for range 20 {
		for _, p := range h.partitions {
			p.write(50, 100)
		}
	}
	for i, p := range h.partitions {
		h.targets[i].mustEqual(t, p)
	}
	for _, s := range h.source.Status() {
		if s.LoadedBytes != s.ShippedBytes {
			t.Errorf("partition %d: %d of %d bytes came from the log, want all", s.Partition, s.LoadedBytes, s.ShippedBytes)
		}
	}
}
