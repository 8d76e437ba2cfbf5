package gc

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

func sortUsages(u []PartitionUsage) {
	slices.SortFunc(u, func(a, b PartitionUsage) int { return cmp.Compare(a.Partition, b.Partition) })
}

// truth is a condition as a gauge.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// register adds the gauges, which are computed from the status when asked for.
func (d *DiskStat) register(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("replicanode_gc_disk_"+name, help, labels, nil)
	}
	total := desc("total_bytes", "Size of the file system.", "path")
	free := desc("free_bytes", "Space free for this process.", "path")
	inodes := desc("free_inodes", "Inodes free for this process.", "path")
	level := desc("level", "0 ok, 1 low, 2 critical: writes are refused.", "path")
	stuck := desc("stuck", "1 while the disk does not answer.", "path")
	slow := desc("slow", "1 while the newest synced write took longer than it may.", "path")
	unusable := desc("failed", "1 when the disk could not be used at the start.", "path")
	write := desc("write_seconds", "How long the newest write of 4 KiB took.", "path")
	sync := desc("sync_seconds", "How long the sync after the newest write of 4 KiB took.", "path")
	read := desc("read_seconds", "How long it then took to read them from the disk.", "path")
	ioErrors := desc("io_errors_total", "Attempts at which a call to the disk failed, since the start.", "path")
	failed := desc("errors_total", "Attempts at which the disk could not be measured, since the start.", "path")
	owned := desc("used_bytes", "Allocated bytes by owner: log, data, checkpoint; garbage is that part of log and data that nothing needs.", "path", "partition", "kind")
	rest := desc("unowned_bytes", "Allocated bytes of no partition: dropped, other.", "path", "kind")
	descs := []*prometheus.Desc{total, free, inodes, level, stuck, slow, unusable, write, sync, read, failed, ioErrors, owned, rest}
	reg.MustRegister(collectorFunc{descs, func(ch chan<- prometheus.Metric) {
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
		}
		for _, disk := range d.Status() {
			gauge(total, float64(disk.TotalBytes), disk.Path)
			gauge(free, float64(disk.FreeBytes), disk.Path)
			gauge(inodes, float64(disk.FreeInodes), disk.Path)
			gauge(level, float64(disk.Level), disk.Path)
			gauge(write, disk.WriteSeconds, disk.Path)
			gauge(sync, disk.SyncSeconds, disk.Path)
			gauge(read, disk.ReadSeconds, disk.Path)
			ch <- prometheus.MustNewConstMetric(ioErrors, prometheus.CounterValue, float64(disk.IOErrors), disk.Path)
			gauge(failed, float64(disk.Errors), disk.Path)
			gauge(stuck, truth(disk.Stuck), disk.Path)
			gauge(slow, truth(disk.Slow), disk.Path)
			gauge(unusable, truth(disk.Failed), disk.Path)
			gauge(rest, float64(disk.DroppedBytes), disk.Path, "dropped")
			gauge(rest, float64(disk.OtherBytes), disk.Path, "other")
			for _, p := range disk.Partitions {
				id := strconv.FormatUint(uint64(p.Partition), 10)
				gauge(owned, float64(p.LogBytes), disk.Path, id, "log")
				gauge(owned, float64(p.DataBytes), disk.Path, id, "data")
				gauge(owned, float64(p.CheckpointBytes), disk.Path, id, "checkpoint")
				gauge(owned, float64(p.GarbageBytes), disk.Path, id, "garbage")
			}
		}
	}})
}
