package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"replicanode/replica"
)

// planFolders decides from what was found which folders the node has, and where its partitions are. Nothing is written.
//
// It asks one question after the other: are the folders apart, of which node are they, which record of the node's folders is the newest,
// where is each folder that it names, which are new, and where does each partition belong.
func planFolders(folders []*folder, want Identity) (*Folders, error) {
	if err := apart(folders); err != nil {
		return nil, err
	}
	p := &folderPlan{want: want}
	for _, f := range folders {
		switch {
		case f.err != nil:
			p.broken = append(p.broken, f)
		case f.fresh:
			p.fresh = append(p.fresh, f)
		default:
			p.known = append(p.known, f)
		}
	}
	for _, step := range []func() error{p.identify, p.choose, p.match, p.admit, p.place} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p.out, nil
}

// folderPlan is a decision in the making.
type folderPlan struct {
	want                 Identity
	known, fresh, broken []*folder
	// set is the newest record of the node's folders; without folders when there is none.
	set           folderSet
	mayStartEmpty []uint32
	// chosen are the folders of the members of set, and then those that are added.
	chosen []*folder
	out    *Folders
}

// apart refuses folders that are the same, or within each other.
func apart(folders []*folder) error {
	for i, a := range folders {
		for _, b := range folders[:i] {
			switch {
			case a.real == b.real || sameFolder(a.real, b.real):
				return apartError(a, "is the same folder as --data-dir %s; give each folder once", b)
			case inside(a.real, b.real):
				return apartError(a, "lies within --data-dir %s; give folders beside each other, each on a disk of its own", b)
			case inside(b.real, a.real):
				return apartError(b, "lies within --data-dir %s; give folders beside each other, each on a disk of its own", a)
			case a.file.Folder != "" && a.file.Folder == b.file.Folder && a.file.ClusterID == b.file.ClusterID && a.err == nil && b.err == nil:
				return about(a.path, fmt.Errorf("is a copy of --data-dir %s: both say to be the same folder of this node; leave the outdated one out", b.path))
			}
		}
	}
	return nil
}

// apartError refuses a command line, whatever the folders hold.
func apartError(f *folder, reason string, other *folder) error {
	return &FlagError{Flag: "data-dir", Value: f.path, Reason: fmt.Sprintf(reason, other.path)}
}

func sameFolder(a, b string) bool {
	x, xerr := os.Stat(a)
	y, yerr := os.Stat(b)
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

func inside(inner, outer string) bool {
	return strings.HasPrefix(inner, strings.TrimSuffix(outer, "/")+"/")
}

// identify finds out which node the folders belong to.
func (p *folderPlan) identify() error {
	p.out = &Folders{}
	if len(p.known) == 0 {
		if len(p.broken) > 0 {
			return about(p.broken[0].path, p.broken[0].err)
		}
		var err error
		p.out.Identity, err = newIdentity(p.want)
		return err
	}
	first := p.known[0]
	id := first.file.Identity
	for _, f := range p.known[1:] {
		if o := f.file.Identity; o.ClusterID != id.ClusterID || o.NodeID != id.NodeID || o.Partitions != id.Partitions {
			return about(f.path, fmt.Errorf("belongs to another node than --data-dir %s: to node %d of cluster %d with %d partitions, not to node %d of cluster %d with %d; give the folders of one node",
				first.path, o.NodeID, o.ClusterID, o.Partitions, id.NodeID, id.ClusterID, id.Partitions))
		}
	}
	if want := p.want.Partitions; want != 0 && want != id.Partitions {
		return &FlagError{Flag: "partitions", Value: fmt.Sprint(want), Reason: fmt.Sprintf("data folder %s was made with %d partitions, and their number can't change; leave the flag out or give %d", first.path, id.Partitions, id.Partitions)}
	}
	if want := p.want.ClusterID; want != 0 && want != id.ClusterID {
		return &FlagError{Flag: "cluster-id", Value: fmt.Sprint(want), Reason: fmt.Sprintf("data folder %s belongs to cluster %d", first.path, id.ClusterID)}
	}
	p.out.Identity = id
	return nil
}

// choose picks the newest record, and what all folders agree may start empty.
func (p *folderPlan) choose() error {
	var newest *folder
	p.mayStartEmpty = allPartitions(p.out.Identity.Partitions, nil)
	for _, f := range p.known {
		p.mayStartEmpty = slices.DeleteFunc(p.mayStartEmpty, func(id uint32) bool { return !slices.Contains(f.file.MayStartEmpty, id) })
		if set := f.file.Set; set != nil && (newest == nil || set.Version > newest.file.Set.Version) {
			newest = f
		}
	}
	if newest == nil {
		if len(p.known) > 1 {
			return about(p.known[1].path, fmt.Errorf("is a copy of --data-dir %s: each says to be the only folder of this node; leave the outdated one out", p.known[0].path))
		}
		return nil
	}
	p.set = *newest.file.Set
	p.out.version = p.set.Version
	for _, f := range p.known {
		if set := f.file.Set; set != nil && set.Version == p.set.Version && !sameMembers(set, &p.set) {
			return about(f.path, fmt.Errorf("and --data-dir %s name different folders of this node; give only those that belong together", newest.path))
		}
	}
	return nil
}

func sameMembers(a, b *folderSet) bool {
	return slices.EqualFunc(a.Folders, b.Folders, func(x, y member) bool { return x.ID == y.ID })
}

// take removes the folder that fits from a list.
func take(list *[]*folder, fits func(*folder) bool) *folder {
	i := slices.IndexFunc(*list, fits)
	if i < 0 {
		return nil
	}
	f := (*list)[i]
	*list = slices.Delete(slices.Clone(*list), i, i+1)
	return f
}

// match finds the folder of each member of the record.
func (p *folderPlan) match() error {
	known := slices.Clone(p.known)
	if len(p.set.Folders) == 0 && len(known) == 1 {
		return p.chooseOne(member{}, known[0])
	}
	for _, m := range p.set.Folders {
		there := func(f *folder) bool { return f.real == m.Path }
		f := take(&known, func(f *folder) bool { return f.file.Folder == m.ID })
		if f == nil {
			f = take(&known, func(f *folder) bool { return f.file.Set == nil && there(f) })
		}
		if f == nil {
			f = take(&p.broken, there)
		}
		needed := served(m.Partitions, p.mayStartEmpty)
		if f == nil {
			if f = take(&p.fresh, there); f != nil && len(needed) > 0 {
				f.err = fmt.Errorf("is empty, but held %s of this node; is its disk mounted? Mount it, or accept the loss with replicanode replica drop", numbers(needed))
			}
		}
		if f == nil {
			if err := p.missing(m, needed); err != nil {
				return err
			}
			continue
		}
		if err := p.chooseOne(m, f); err != nil {
			return err
		}
	}
	for _, f := range known {
		// It was taken out of the node, or its addition was never finished: it may be added like a new one.
		if len(f.partitions) > 0 || f.leftovers {
			return about(f.path, fmt.Errorf("is none of this node's folders any more, but holds something (%s); leave it out, or move away what is in it", holdings(f)))
		}
		p.fresh = append(p.fresh, f)
	}
	return nil
}

func holdings(f *folder) string {
	if len(f.partitions) > 0 {
		return numbers(f.partitions)
	}
	return "dropped replicas or checkpoints"
}

// chooseOne makes a folder a member.
func (p *folderPlan) chooseOne(m member, f *folder) error {
	if m.ID == "" {
		n, err := randomNumber()
		if err != nil {
			return fmt.Errorf("choose an id for data folder %s: %w", f.path, err)
		}
		m.ID = fmt.Sprintf("%016x", n)
	}
	p.chosen = append(p.chosen, f)
	p.out.list = append(p.out.list, memberFolder{id: m.ID, path: f.path, real: f.real, err: f.err, lock: f.lock, written: f.file})
	return nil
}

// missing refuses to leave out a folder that holds something.
func (p *folderPlan) missing(m member, needed []uint32) error {
	flag := "--data-dir " + m.Path
	if len(needed) > 0 {
		return fmt.Errorf("%s is missing: it holds %s of this node; give it, too", flag, numbers(needed))
	}
	left := &folder{path: m.Path}
	left.file.Partitions = p.out.Identity.Partitions
	err := left.scan()
	first := p.set.Folders[0].ID == m.ID
	if err != nil && !first {
		err = nil // its disk is gone, and with it at most what was dropped
	}
	if _, serr := os.Stat(filepath.Join(m.Path, identityFile)); first && serr != nil {
		err = serr
	}
	if err != nil {
		return fmt.Errorf("%s is missing: it keeps the node's checkpoints, and can't be looked at: %w; give it, too", flag, err)
	}
	if len(left.partitions) > 0 || left.leftovers {
		return fmt.Errorf("%s is missing: it holds no partition that is in use, but %s; give it, too, or remove them first", flag, holdings(left))
	}
	p.out.notes = append(p.out.notes, flag+" held nothing and is taken out of the node's folders")
	return nil
}

// admit adds the new folders. All others must be there for it: one that is away would not know.
func (p *folderPlan) admit() error {
	if len(p.broken) > 0 {
		f := p.broken[0]
		return about(f.path, fmt.Errorf("%w (no folder of this node was there before)", f.err))
	}
	joins := len(p.fresh) > 0
	leaves := 0
	for _, m := range p.set.Folders {
		if !slices.ContainsFunc(p.out.list, func(d memberFolder) bool { return d.id == m.ID }) {
			leaves++
		}
	}
	if joins || leaves > 0 {
		if err := p.out.Unusable(); err != nil {
			return fmt.Errorf("folders can be added or left out only while all others can be used: %w", err)
		}
	}
	for _, f := range p.fresh {
		f.file = nodeFile{}
		if err := p.chooseOne(member{}, f); err != nil {
			return err
		}
		p.out.list[len(p.out.list)-1].added = true
		if len(p.known) > 0 {
			p.out.notes = append(p.out.notes, "--data-dir "+f.path+" is added to the node's folders")
		}
	}
	p.out.changed = joins || leaves > 0
	p.out.Identity.FormatVersion = soleFormatVersion
	if len(p.out.list) > 1 || p.out.version > 0 {
		p.out.Identity.FormatVersion = formatVersion
	}
	if !slices.ContainsFunc(p.out.list, func(d memberFolder) bool { return d.err == nil }) {
		return p.out.Unusable()
	}
	return nil
}

// place says where each partition is, or is to be made.
func (p *folderPlan) place() error {
	n := int(p.out.Identity.Partitions)
	p.out.mayStartEmpty = p.mayStartEmpty
	p.out.placement = slices.Repeat([]int{-1}, n)
	load := make([]int, len(p.chosen))
	put := func(id uint32, at int) {
		p.out.placement[id] = at
		load[at]++
	}
	for at, f := range p.chosen {
		if f.err != nil {
			continue
		}
		for _, id := range f.partitions {
			if before := p.out.placement[id]; before >= 0 {
				return about(f.path, fmt.Errorf("holds partition %d, and so does --data-dir %s; move the outdated one of %s and %s out of the data folders",
					id, p.chosen[before].path, partitionPath(p.chosen[before].path, id), partitionPath(f.path, id)))
			}
			put(id, at)
		}
	}
	recorded := func(id uint32) int {
		if len(p.set.Folders) == 0 && len(p.known) == 1 {
			return 0
		}
		for _, m := range p.set.Folders {
			if slices.Contains(m.Partitions, id) {
				return slices.IndexFunc(p.out.list, func(d memberFolder) bool { return d.id == m.ID })
			}
		}
		return -1
	}
	for id := range uint32(n) {
		if p.out.placement[id] >= 0 {
			continue
		}
		// A partition that was dropped is placed anew; on a disk that is away it may be there.
		if at := recorded(id); at >= 0 && (!slices.Contains(p.mayStartEmpty, id) || p.chosen[at].err != nil) {
			put(id, at)
		}
	}
	for id := range uint32(n) {
		if p.out.placement[id] < 0 {
			put(id, p.emptiest(load))
		}
	}
	return nil
}

// spaceStep is the difference in free space that matters: folders on one disk have the same.
const spaceStep = 1 << 30

// emptiest is the folder with the fewest partitions, and among those the first of those with most space.
func (p *folderPlan) emptiest(load []int) int {
	best := -1
	for at, f := range p.chosen {
		if f.err == nil && (best < 0 || load[at] < load[best] || load[at] == load[best] && f.free/spaceStep > p.chosen[best].free/spaceStep) {
			best = at
		}
	}
	return best
}

// partitionPath is the folder of a partition in a data folder.
func partitionPath(dataDir string, id uint32) string {
	return filepath.Join(dataDir, partitionsDir, replica.PartitionDir(id))
}
