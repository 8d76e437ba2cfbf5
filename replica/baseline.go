package replica

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// Baseline is what a partition's data rests on beside the user mutations of its own log. Whoever is given those mutations only,
// to have the same data in the end, must have the baseline already.
type Baseline struct {
	// Decree is that of the checkpoint which the partition was restored from; its own mutations come after it. 0: it was not
	// restored, and its own mutations begin with decree 1.
	Decree uint64
	// Sources are the clusters whose mutations are part of the data, and up to which decree of the partition there. The cluster
	// that the checkpoint was taken from is one of them.
	Sources []SourceProgress
}

// SourceProgress says that the mutations of a cluster's partition are applied up to a decree.
type SourceProgress struct {
	Cluster uint64
	Decree  uint64
}

// Baseline reads the partition's baseline at the applied decree.
func (p *Partition) Baseline() (b Baseline, err error) {
	err = p.viewApplied(func(v *View) error {
		rec, err := readRecord(v.txn, baseKey)
		if err != nil {
			return err
		}
		if rec != nil {
			if b.Decree, err = parseNumber(rec); err != nil {
				return err
			}
		}
		b.Sources, err = readSources(v.txn, p.id)
		return err
	})
	return b, err
}

// readSources reads the progress of all remote sources of the partition.
func readSources(txn *badger.Txn, partition uint32) (sources []SourceProgress, err error) {
	prefix := []byte{tableSystem, sysProgress}
	o := badger.DefaultIteratorOptions
	o.Prefix = prefix
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		key := it.Item().Key()[len(prefix):]
		if len(key) != 12 {
			return nil, fmt.Errorf("%w: progress key of %d bytes", errState, len(key))
		}
		if binary.BigEndian.Uint32(key[8:]) != partition {
			continue
		}
		source := SourceProgress{Cluster: binary.BigEndian.Uint64(key)}
		err := it.Item().Value(func(rec []byte) (err error) {
			source.Decree, err = parseNumber(rec)
			return err
		})
		if err != nil {
			return nil, err
		}
		sources = append(sources, source)
	}
	return sources, nil
}

// Record is one record of a partition's database.
type Record struct{ Key, Value []byte }

// RestoredRecords are what a database restored from a checkpoint must hold, in ascending order of their keys, so that it may begin
// a life in a cluster of its own: that its mutations come after the checkpoint's decree, and that everything of the origin, the
// cluster which the checkpoint was taken from, is there up to that decree.
func RestoredRecords(origin uint64, partition uint32, decree uint64) []Record {
	value := binary.LittleEndian.AppendUint64(nil, decree)
	return []Record{{Key: baseKey, Value: value}, {Key: appendProgressKey(nil, origin, partition), Value: value}}
}

// DroppedOnRestore says whether a record of a checkpoint means nothing in another cluster: what the origin's remotes have confirmed.
func DroppedOnRestore(key []byte) bool {
	return len(key) > 2 && key[0] == tableSystem && key[1] == sysConfirmed
}
