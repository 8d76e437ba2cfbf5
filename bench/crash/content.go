package crash

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/redis/go-redis/v9"

	"replicanode/replica"
)

// content is a digest of everything in each partition, as clients see it, and how many keys that was.
type content struct {
	digest []uint64
	keys   []int
}

// readContent reads every key of the node at addr. Nobody may be writing.
func readContent(ctx context.Context, addr string, partitions int) (content, error) {
	c := connect(addr)
	defer c.Close()
	byPartition := make([][]string, partitions)
	seen := make(map[string]bool)
	for cursor := uint64(0); ; {
		keys, next, err := c.Scan(ctx, cursor, "", readBatch).Result()
		if err != nil {
			return content{}, fmt.Errorf("scan: %w", err)
		}
		for _, k := range keys {
			if !seen[k] {
				seen[k] = true
				p := replica.PartitionOf([]byte(k), uint32(partitions))
				byPartition[p] = append(byPartition[p], k)
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	all := content{make([]uint64, partitions), make([]int, partitions)}
	for p, keys := range byPartition {
		slices.Sort(keys)
		digest := xxhash.New()
		for batch := range slices.Chunk(keys, readBatch) {
			if err := digestKeys(ctx, c, batch, digest); err != nil {
				return content{}, err
			}
		}
		all.digest[p], all.keys[p] = digest.Sum64(), len(keys)
	}
	return all, nil
}

func digestKeys(ctx context.Context, c *redis.Client, keys []string, digest *xxhash.Digest) error {
	pipe := c.Pipeline()
	kinds := make([]*redis.StatusCmd, len(keys))
	for i, k := range keys {
		kinds[i] = pipe.Type(ctx, k)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("ask for types: %w", err)
	}
	pipe = c.Pipeline()
	strings, hashes := make([]*redis.StringCmd, len(keys)), make([]*redis.MapStringStringCmd, len(keys))
	for i, k := range keys {
		if kinds[i].Val() == "hash" {
			hashes[i] = pipe.HGetAll(ctx, k)
		} else {
			strings[i] = pipe.Get(ctx, k)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("read values: %w", err)
	}
	for i, k := range keys {
		digestString(digest, k)
		digestString(digest, kinds[i].Val())
		if strings[i] != nil {
			digestString(digest, strings[i].Val())
			continue
		}
		fields := hashes[i].Val()
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			digestString(digest, name)
			digestString(digest, fields[name])
		}
	}
	return nil
}

// digestString adds the length too, so that different lists of strings never look the same.
func digestString(digest *xxhash.Digest, s string) {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(s)))
	_, _ = digest.Write(length[:])
	_, _ = digest.WriteString(s)
}

// differs says where two nodes hold different things.
func (a content) differs(b content) error {
	for p := range a.digest {
		if a.digest[p] != b.digest[p] {
			return mismatch{fmt.Errorf("partition %d: the primary's %d keys have digest %016x, the backup's %d have %016x",
				p, a.keys[p], a.digest[p], b.keys[p], b.digest[p])}
		}
	}
	return nil
}
