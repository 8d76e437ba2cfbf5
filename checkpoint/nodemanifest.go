package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	nodesDir       = "nodes"
	nodeFileSuffix = ".json"
	// nodeNameLayout sorts as time does. It has milliseconds, so that names differ.
	nodeNameLayout = "20060102T150405.000Z"
)

// ErrIncomplete means that a node's checkpoint lacks a partition.
var ErrIncomplete = errors.New("the node's checkpoint is not complete")

// NodeManifest describes one checkpoint of a whole node: one checkpoint of each
// of its partitions. It is written when all of them are there; as long as it is
// kept, so are they.
type NodeManifest struct {
	FormatVersion int       `json:"format_version"`
	ClusterID     uint64    `json:"cluster_id"` // cluster the data came from, 0 = unknown
	Partitions    uint32    `json:"partitions"` // how many the keyspace is split into
	Created       time.Time `json:"created"`    // when the first partition was begun, UTC
	Finished      time.Time `json:"finished"`   // when the last one was done, UTC
	Entries       uint64    `json:"entries"`    // of all parts
	Bytes         int64     `json:"bytes"`      // of all parts' chunk files, ancestors not counted
	Parts         []Part    `json:"parts"`      // one per partition, ascending

	// Name identifies the checkpoint in its store and sorts by the time of Created.
	Name string `json:"-"`
	// CRC is the checksum of the manifest as it stands in its file.
	CRC string `json:"-"`
}

// Part is one partition's part in a node's checkpoint.
type Part struct {
	Partition uint32 `json:"partition"`
	// Decree is that of the partition's checkpoint; 0 for a partition to which
	// nothing had been applied, which has none.
	Decree uint64 `json:"decree"`
	// ManifestCRC is the checksum of the checkpoint's manifest: exactly this copy is meant.
	ManifestCRC string `json:"manifest_crc32c,omitempty"`
	Entries     uint64 `json:"entries"`
	Bytes       int64  `json:"bytes"`
}

// NodeInfo is one node's checkpoint as Nodes found it.
type NodeInfo struct {
	Name     string        `json:"name"`
	Path     string        `json:"path"`
	Manifest *NodeManifest `json:"manifest,omitempty"`
	// Err says why the checkpoint cannot be used. Manifest is nil when that is the
	// manifest's own fault.
	Err error `json:"-"`
	// Problem is Err as text.
	Problem string `json:"problem,omitempty"`
}

// validate holds the manifest's parts against each other.
func (m *NodeManifest) validate() error {
	if m.Partitions == 0 || len(m.Parts) != int(m.Partitions) {
		return fmt.Errorf("%w: %d parts of %d", ErrIncomplete, len(m.Parts), m.Partitions)
	}
	var entries uint64
	var bytes int64
	for i := range m.Parts {
		p := &m.Parts[i]
		if p.Partition != uint32(i) {
			return fmt.Errorf("part %d is of partition %d", i, p.Partition)
		}
		if (p.Decree == 0) != (p.ManifestCRC == "") {
			return fmt.Errorf("the part of partition %d has a decree or a checksum, not both", i)
		}
		entries += p.Entries
		bytes += p.Bytes
	}
	if entries != m.Entries || bytes != m.Bytes {
		return errors.New("totals differ from the sum of the parts")
	}
	return nil
}

// parseNodeManifest decodes and validates the bytes of a node manifest's file.
func parseNodeManifest(path string, b []byte) (*NodeManifest, error) {
	m := &NodeManifest{}
	crc, err := parseBody(path, b, m)
	if err != nil {
		return nil, err
	}
	m.CRC = crc
	return m, nil
}

func (m *NodeManifest) version() int { return m.FormatVersion }

func nodePath(name string) string { return path.Join(nodesDir, name+nodeFileSuffix) }

// PutNode makes a checkpoint of the whole node of m, whose Name it chooses. It
// appears whole or not at all; ErrIncomplete when a part is not usable.
func (s *Store) PutNode(ctx context.Context, m *NodeManifest) error {
	m.FormatVersion, m.Name = FormatVersion, ""
	slices.SortFunc(m.Parts, func(a, b Part) int { return int(a.Partition) - int(b.Partition) })
	m.Entries, m.Bytes = 0, 0
	for _, p := range m.Parts {
		m.Entries += p.Entries
		m.Bytes += p.Bytes
	}
	if err := m.validate(); err != nil {
		return fmt.Errorf("make the node's manifest: %w", err)
	}
	if err := s.checkParts(ctx, m); err != nil {
		return err
	}
	b, crc, err := encodeFramed(m)
	if err != nil {
		return err
	}
	m.CRC = crc
	taken, err := s.b.List(ctx, nodesDir)
	if err != nil {
		return err
	}
	for at := m.Created.UTC(); m.Name == "" || slices.Contains(taken, m.Name+nodeFileSuffix); at = at.Add(time.Millisecond) {
		m.Name = at.Format(nodeNameLayout)
	}
	if err := s.b.Put(ctx, nodePath(m.Name), b); err != nil {
		return fmt.Errorf("write node manifest %s: %w", m.Name, err)
	}
	return nil
}

// partChecks is how many parts are looked at at once.
const partChecks = 32

// checkParts looks whether every part of m is there, with its whole chain.
func (s *Store) checkParts(ctx context.Context, m *NodeManifest) error {
	errs := make([]error, len(m.Parts))
	slots := make(chan struct{}, partChecks)
	var all sync.WaitGroup
	for i, p := range m.Parts {
		if p.Decree == 0 {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = s.checkPart(ctx, p)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *Store) checkPart(ctx context.Context, p Part) error {
	chain, err := s.chain(ctx, p.Partition, p.Decree)
	var corrupt *CorruptError
	switch {
	case errors.Is(err, ErrNotFound), errors.As(err, &corrupt):
		return fmt.Errorf("%w: partition %d at decree %d: %w", ErrIncomplete, p.Partition, p.Decree, err)
	case err != nil:
		return fmt.Errorf("look at partition %d at decree %d: %w", p.Partition, p.Decree, err)
	}
	if crc := chain[len(chain)-1].CRC; crc != p.ManifestCRC {
		return fmt.Errorf("%w: the checkpoint of partition %d at decree %d has the manifest %s, not %s",
			ErrIncomplete, p.Partition, p.Decree, crc, p.ManifestCRC)
	}
	return nil
}

// Nodes returns the checkpoints of the whole node, oldest first. One that is
// damaged or lacks a part is listed with the reason.
func (s *Store) Nodes(ctx context.Context) ([]NodeInfo, error) {
	infos, err := s.nodeManifests(ctx)
	if err != nil {
		return nil, err
	}
	for i := range infos {
		info := &infos[i]
		if info.Err == nil {
			info.Err = s.checkParts(ctx, info.Manifest)
		}
		if info.Err != nil {
			info.Problem = info.Err.Error()
		}
	}
	return infos, nil
}

// nodeManifests is Nodes without the look at the parts.
func (s *Store) nodeManifests(ctx context.Context) ([]NodeInfo, error) {
	names, err := s.b.List(ctx, nodesDir)
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	var infos []NodeInfo
	for _, file := range names {
		name, ok := strings.CutSuffix(file, nodeFileSuffix)
		if _, err := time.Parse(nodeNameLayout, name); !ok || err != nil {
			continue
		}
		info := NodeInfo{Name: name, Path: s.b.Path(nodePath(name))}
		b, err := s.readSmall(ctx, nodePath(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err == nil {
			info.Manifest, err = parseNodeManifest(info.Path, b)
		}
		if info.Err = err; err == nil {
			info.Manifest.Name = name
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// Node returns the node's checkpoint of that name, or with "" the newest usable
// one; ErrNotFound when there is none.
func (s *Store) Node(ctx context.Context, name string) (*NodeManifest, error) {
	infos, err := s.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	for i := len(infos) - 1; i >= 0; i-- {
		switch info := &infos[i]; {
		case name == info.Name:
			return info.Manifest, info.Err
		case name == "" && info.Err == nil:
			return info.Manifest, nil
		}
	}
	switch n := len(infos); {
	case name != "":
		return nil, fmt.Errorf("checkpoint %s of the node: %w", name, ErrNotFound)
	case n == 0:
		return nil, fmt.Errorf("%w: none of the whole node", ErrNotFound)
	default:
		return nil, fmt.Errorf("%w: no usable one of the whole node; the newest, %s: %w", ErrNotFound, infos[n-1].Name, infos[n-1].Err)
	}
}

// CleanNodes removes what an interrupted PutNode left.
func (s *Store) CleanNodes(ctx context.Context) error {
	return s.b.Clean(ctx, nodesDir, s.each(ctx, nil))
}

// ObsoleteNodes returns those of infos (as Nodes returns them) that r lets go,
// oldest first. The newest usable one always stays; one that is damaged or lacks
// a part goes as soon as a newer usable one exists.
func (r Retention) ObsoleteNodes(infos []NodeInfo, now time.Time) []NodeInfo {
	usable, newestUsable := 0, -1
	stay := make([]bool, len(infos))
	for i := len(infos) - 1; i >= 0; i-- {
		if infos[i].Err != nil {
			// Not readable just now, or not by this version, is no damage.
			stay[i] = !infos[i].damaged()
			continue
		}
		if usable++; usable == 1 {
			newestUsable = i
		}
		stay[i] = usable <= max(1, r.KeepLast) || r.young(infos[i].Manifest.Created, now)
	}
	var obsolete []NodeInfo
	for i := range max(0, newestUsable) {
		if !stay[i] {
			obsolete = append(obsolete, infos[i])
		}
	}
	return obsolete
}

func (i *NodeInfo) damaged() bool {
	var corrupt *CorruptError
	return errors.As(i.Err, &corrupt) || errors.Is(i.Err, ErrIncomplete)
}

// PruneNodes removes the node's obsolete checkpoints and returns their names.
// Their parts stay until each partition is pruned.
func (s *Store) PruneNodes(ctx context.Context, r Retention, now time.Time) ([]string, error) {
	r.EnsureDefaults()
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := s.CleanNodes(ctx); err != nil {
		return nil, err
	}
	infos, err := s.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, info := range r.ObsoleteNodes(infos, now) {
		if err := s.b.Delete(ctx, nodePath(info.Name)); err != nil {
			return removed, fmt.Errorf("remove node manifest %s: %w", info.Name, err)
		}
		removed = append(removed, info.Name)
	}
	return removed, nil
}

// needed returns the decrees of a partition that the node's checkpoints, those
// in gone left out, need. A
// manifest that cannot be read may need any: that is an error. A damaged one
// can never be restored and needs none.
func (s *Store) needed(ctx context.Context, partition uint32, gone []string) (map[uint64]bool, error) {
	infos, err := s.nodeManifests(ctx)
	if err != nil {
		return nil, err
	}
	decrees := make(map[uint64]bool)
	for _, info := range infos {
		switch {
		case slices.Contains(gone, info.Name):
		case info.Err != nil && !info.damaged():
			return nil, fmt.Errorf("what the node's checkpoint %s needs is not known: %w", info.Name, info.Err)
		case info.Err == nil && partition < info.Manifest.Partitions:
			decrees[info.Manifest.Parts[partition].Decree] = true
		}
	}
	return decrees, nil
}
