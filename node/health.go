package node

import (
	"errors"
	"fmt"
	"time"

	"replicanode/replica"
	"replicanode/server/admin"
)

// Live implements admin.Health: the process lives as long as one partition can serve.
func (n *Node) Live() error {
	if n.phases.readiness().Phase != PhaseServing {
		return nil
	}
	var last error
	for _, p := range n.host.Partitions() {
		if p.Err() == nil {
			return nil
		}
		last = p.Err()
	}
	return fmt.Errorf("no partition serves; the last reason: %w", last)
}

// Ready implements admin.Health. A node is ready when it has started and every partition serves.
func (n *Node) Ready() admin.Readiness {
	r := n.phases.readiness()
	if !r.Ready {
		return r
	}
	r.Reasons = n.partitionReasons()
	r.Ready = len(r.Reasons) == 0
	return r
}

// partitionReasons names the partitions that do not serve, and why.
func (n *Node) partitionReasons() []string {
	host := n.replicas.Load()
	if host == nil {
		return nil
	}
	reasons := n.diskReasons()
	for _, p := range host.Partitions() {
		var folder *FolderError
		switch err := p.Err(); {
		case errors.As(err, &folder): // named with its folder
		case err != nil:
			reasons = append(reasons, fmt.Sprintf("partition %d: %v", p.ID(), err))
		case !p.Ready():
			reasons = append(reasons, waitReason(p.Status()))
		}
	}
	return reasons
}

// diskReasons names the data folders that can't be used or do not answer, and their partitions.
func (n *Node) diskReasons() []string {
	var reasons []string
	for i := range n.folders.list {
		if f := &n.folders.list[i]; f.err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", numbers(n.folders.on(i)), &FolderError{f.path, f.err}))
		}
	}
	disks := n.disks.Load()
	if disks == nil {
		return reasons
	}
	for i, d := range disks.Status() {
		if d.Stuck {
			reasons = append(reasons, fmt.Sprintf("%s: the disk of %s does not answer since %s", numbers(n.folders.on(i)), d.Path, d.StuckSince.UTC().Format(time.RFC3339)))
		}
	}
	return reasons
}

// waitReason says what a partition that has not failed is still doing.
func waitReason(s replica.Status) string {
	if s.Refusing != "" {
		return fmt.Sprintf("partition %d: %s, %s", s.Partition, s.Phase, s.Refusing)
	}
	if r := s.Replay; r.To > 0 && r.To >= r.From && !r.Done {
		return fmt.Sprintf("partition %d: replaying %d of %d decrees", s.Partition, r.At+1-min(r.From, r.At+1), r.To+1-r.From)
	}
	if s.Leader == 0 {
		return fmt.Sprintf("partition %d: %s, no leader yet", s.Partition, s.Phase)
	}
	return fmt.Sprintf("partition %d: %s, led by node %d", s.Partition, s.Phase, s.Leader)
}
