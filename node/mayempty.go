package node

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
)

// nodeFile is what the file NODE holds.
type nodeFile struct {
	Identity
	// MayStartEmpty are the partitions that have never served from this data folder, or whose replica was dropped. All others must be
	// there when the node starts: a folder that vanished must not come back as a partition without keys.
	MayStartEmpty []uint32 `json:"may_start_empty,omitempty"`
}

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
func (f *Folder) mustExist() []uint32 { return allPartitions(f.Identity.Partitions, f.mayStartEmpty) }

// AllowEmpty notes, durably, that a partition may start without a folder.
func (f *Folder) AllowEmpty(partition uint32) error {
	if partition >= f.Identity.Partitions || slices.Contains(f.mayStartEmpty, partition) {
		return nil
	}
	list := append(slices.Clone(f.mayStartEmpty), partition)
	slices.Sort(list)
	return f.write(f.Identity, list)
}

// RequirePresent takes AllowEmpty back for partitions whose folders are there, and hold something.
func (f *Folder) RequirePresent(partitions ...uint32) error {
	list := slices.DeleteFunc(slices.Clone(f.mayStartEmpty), func(id uint32) bool { return slices.Contains(partitions, id) })
	if len(list) == len(f.mayStartEmpty) {
		return nil
	}
	return f.write(f.Identity, list)
}

// write replaces the file NODE.
func (f *Folder) write(id Identity, mayStartEmpty []uint32) error {
	data, err := json.MarshalIndent(nodeFile{Identity: id, MayStartEmpty: mayStartEmpty}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode node identity: %w", err)
	}
	if err := writeFileSynced(filepath.Join(f.Path, identityFile), append(data, '\n')); err != nil {
		return err
	}
	f.Identity, f.mayStartEmpty = id, mayStartEmpty
	return nil
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
	if err := n.folder.RequirePresent(serve...); err != nil {
		n.opts.Logger.Warn("partitions that serve not noted", "error", err)
	}
}
