package replica

import "bytes"

// Slots is the number of hash slots of the key space, as in Redis Cluster.
const Slots = 16384

// MaxPartitions is the largest partition count.
const MaxPartitions = 1024

// Slot is the hash slot of a key: CRC16 of its hash tag, modulo Slots. The tag is what stands between the first '{'
// and the next '}' after it when that is not empty, and else the whole key.
func Slot(key []byte) uint16 {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1 : open+1+n]
		}
	}
	crc := uint16(0)
	for _, c := range key {
		crc = crc<<8 ^ crc16Table[byte(crc>>8)^c]
	}
	return crc % Slots
}

// PartitionOf is the partition of a key among n partitions: the slots are split evenly, in order.
func PartitionOf(key []byte, n uint32) uint32 {
	return uint32(uint64(Slot(key)) * uint64(n) / Slots)
}

// crc16Table is the table of CRC-16/XMODEM (polynomial 0x1021).
var crc16Table = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()
