package checkpoint

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Retention says which checkpoints of a partition stay.
type Retention struct {
	// KeepLast is how many of the newest usable checkpoints stay, default 3, at least 1.
	KeepLast int
	// KeepFor keeps whatever is younger, default 0: the count alone decides.
	KeepFor time.Duration
}

// EnsureDefaults fills in the defaults.
func (r *Retention) EnsureDefaults() {
	r.KeepLast = cmp.Or(r.KeepLast, 3)
}

// Validate says what is wrong with the retention.
func (r *Retention) Validate() error {
	if r.KeepLast < 1 || r.KeepFor < 0 {
		return fmt.Errorf("keep the last %d and for %v: at least one must stay, for a time that is not negative", r.KeepLast, r.KeepFor)
	}
	return nil
}

// Obsolete returns those of infos (one partition's, as List returns them) that
// r lets go, oldest first. A usable checkpoint is one whose whole chain is
// usable. The newest usable one and every ancestor of one that stays always
// stay, and so do those that needed names and their ancestors; damaged ones go
// as soon as a newer usable one exists.
func (r Retention) Obsolete(infos []Info, needed map[uint64]bool, now time.Time) []Info {
	byDecree := make(map[uint64]*Manifest, len(infos))
	for _, info := range infos {
		if info.Err == nil {
			byDecree[info.Decree] = info.Manifest
		}
	}
	infos = ByAge(infos)
	stay := make(map[uint64]bool)
	usable, newestUsable := 0, -1
	for i := len(infos) - 1; i >= 0; i-- {
		chain := ancestry(byDecree, infos[i].Decree)
		if chain == nil {
			continue
		}
		if usable == 0 {
			newestUsable = i
		}
		usable++
		if usable <= max(1, r.KeepLast) || needed[infos[i].Decree] || r.young(infos[i].Manifest.Created, now) {
			for _, decree := range chain {
				stay[decree] = true
			}
		}
	}
	var obsolete []Info
	for i, info := range infos {
		unreadable := info.Err != nil && !info.damaged()
		if i < newestUsable && !stay[info.Decree] && !unreadable {
			obsolete = append(obsolete, info)
		}
	}
	return obsolete
}

// young tells whether KeepFor alone keeps what was made then. One made in the
// future, by a clock that was ahead, is young as well.
func (r Retention) young(created, now time.Time) bool {
	return r.KeepFor > 0 && now.Sub(created) < r.KeepFor
}

// ancestry returns the decrees of a checkpoint's chain, itself included; nil if it is broken.
func ancestry(byDecree map[uint64]*Manifest, decree uint64) []uint64 {
	var chain []uint64
	m := byDecree[decree]
	for m != nil {
		chain = append(chain, m.Decree)
		if m.Full() {
			return chain
		}
		parent := byDecree[m.Parent]
		if parent == nil || parent.CRC != m.ParentCRC {
			return nil
		}
		m = parent
	}
	return nil
}

// Removed is one checkpoint that was removed.
type Removed struct {
	Partition uint32 `json:"partition"`
	Decree    uint64 `json:"decree"`
}

// Pruned lists what was removed, or would be.
type Pruned struct {
	Nodes       []string  `json:"nodes,omitempty"` // checkpoints of the whole node, by name
	Checkpoints []Removed `json:"checkpoints,omitempty"`
}

// Add adds a partition's decrees.
func (p *Pruned) Add(partition uint32, decrees []uint64) {
	for _, decree := range decrees {
		p.Checkpoints = append(p.Checkpoints, Removed{partition, decree})
	}
}

// Sort puts the checkpoints in the order of their partitions and decrees.
func (p *Pruned) Sort() {
	slices.SortFunc(p.Checkpoints, func(a, b Removed) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Decree, b.Decree))
	})
}

// Obsolete says what PruneNodes and then Prune of every partition would remove,
// or with a partition what Prune of that one would. Nothing is changed.
func (s *Store) Obsolete(ctx context.Context, partition *uint32, r Retention, now time.Time) (Pruned, error) {
	r.EnsureDefaults()
	if err := r.Validate(); err != nil {
		return Pruned{}, err
	}
	var pruned Pruned
	ids := []uint32{}
	if partition != nil {
		ids = append(ids, *partition)
	} else {
		var err error
		if ids, err = s.Partitions(ctx); err != nil {
			return pruned, err
		}
		nodes, err := s.Nodes(ctx)
		if err != nil {
			return pruned, err
		}
		for _, info := range r.ObsoleteNodes(nodes, now) {
			pruned.Nodes = append(pruned.Nodes, info.Name)
		}
	}
	for _, id := range ids {
		infos, err := s.obsolete(ctx, id, r, now, nil, pruned.Nodes)
		if err != nil {
			return pruned, err
		}
		for _, info := range infos {
			pruned.Add(id, []uint64{info.Decree})
		}
	}
	return pruned, nil
}

// Prune removes the partition's obsolete checkpoints and returns their decrees.
// What a checkpoint of the whole node needs stays, and what keep names. turn may be nil.
func (s *Store) Prune(ctx context.Context, turn Turn, partition uint32, r Retention, now time.Time, keep ...uint64) ([]uint64, error) {
	r.EnsureDefaults()
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := s.Clean(ctx, turn, partition); err != nil {
		return nil, err
	}
	slices := newSlicer(ctx, turn, time.Millisecond)
	var obsolete []Info
	if err := slices.await(func() (err error) {
		obsolete, err = s.obsolete(ctx, partition, r, now, keep, nil)
		return err
	}); err != nil {
		return nil, err
	}
	var backlog int64
	for _, info := range obsolete {
		backlog += info.bytes()
	}
	s.removals.expect(backlog)
	defer func() { s.removals.expect(-backlog) }()
	var removed []uint64
	// Children go before their parents, so that an interruption leaves no broken chain.
	for i := len(obsolete) - 1; i >= 0; i-- {
		if err := s.remove(ctx, turn, obsolete[i]); err != nil {
			return removed, err
		}
		removed = append(removed, obsolete[i].Decree)
		s.removals.expect(-obsolete[i].bytes())
		backlog -= obsolete[i].bytes()
	}
	return removed, nil
}

// obsolete returns what Prune removes once the node's checkpoints in gone are gone.
func (s *Store) obsolete(ctx context.Context, partition uint32, r Retention, now time.Time, keep []uint64, gone []string) ([]Info, error) {
	infos, err := s.List(ctx, partition)
	if err != nil {
		return nil, err
	}
	needed, err := s.needed(ctx, partition, gone)
	if err != nil {
		return nil, err
	}
	for _, decree := range keep {
		needed[decree] = true
	}
	return r.Obsolete(infos, needed, now), nil
}

// Remove removes one checkpoint: ErrLastGood for the partition's only usable
// one, ErrNeeded for one that another builds on or that a checkpoint of the
// whole node needs. turn may be nil.
func (s *Store) Remove(ctx context.Context, turn Turn, partition uint32, decree uint64) error {
	infos, err := s.List(ctx, partition)
	if err != nil {
		return err
	}
	needed, err := s.needed(ctx, partition, nil)
	if err != nil {
		return err
	}
	var target *Info
	others := make(map[uint64]*Manifest)
	for i := range infos {
		if infos[i].Decree == decree {
			target = &infos[i]
		} else if infos[i].Err == nil {
			others[infos[i].Decree] = infos[i].Manifest
		}
	}
	if target == nil {
		return fmt.Errorf("partition %d, decree %d: %w", partition, decree, ErrNotFound)
	}
	if needed[decree] {
		return fmt.Errorf("%w: one of the whole node", ErrNeeded)
	}
	usable := false
	for other, m := range others {
		if m.Parent == decree {
			return fmt.Errorf("%w: decree %d", ErrNeeded, other)
		}
		usable = usable || ancestry(others, other) != nil
	}
	if target.Err == nil && !usable {
		return ErrLastGood
	}
	return s.remove(ctx, turn, *target)
}

// remove takes the name away first, durably, and then the files one by one.
func (s *Store) remove(ctx context.Context, turn Turn, info Info) error {
	return s.b.Remove(ctx, place(info.Partition, info.Decree), s.each(ctx, turn))
}
