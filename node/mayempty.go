package node

import "slices"

// allPartitions are the numbers of n partitions but those of except.
func allPartitions(n uint32, except []uint32) []uint32 {
	var ids []uint32
	for id := range n {
		if !slices.Contains(except, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// mustExist are the partitions that may not start empty.
func (f *Folders) mustExist() []uint32 { return allPartitions(f.Identity.Partitions, f.mayStartEmpty) }

// AllowEmpty notes, durably, that a partition may start without a folder.
func (f *Folders) AllowEmpty(partition uint32) error {
	if partition >= f.Identity.Partitions || slices.Contains(f.mayStartEmpty, partition) {
		return nil
	}
	list := append(slices.Clone(f.mayStartEmpty), partition)
	slices.Sort(list)
	return f.record(list)
}

// RequirePresent takes AllowEmpty back for partitions whose folders are there, and hold something.
func (f *Folders) RequirePresent(partitions ...uint32) error {
	list := slices.DeleteFunc(slices.Clone(f.mayStartEmpty), func(id uint32) bool { return slices.Contains(partitions, id) })
	if len(list) == len(f.mayStartEmpty) {
		return nil
	}
	return f.record(list)
}

// noteServing notes which partitions serve for the first time, before anybody can write to them.
func (n *Node) noteServing() {
	var serve []uint32
	for _, p := range n.host.Partitions() {
		if p.Ready() {
			serve = append(serve, p.ID())
		}
	}
	// Until it is noted, a folder that vanishes is not missed; that is no reason not to serve, for example on a full disk.
	if err := n.folders.RequirePresent(serve...); err != nil {
		n.opts.Logger.Warn("partitions that serve not noted", "error", err)
	}
}
