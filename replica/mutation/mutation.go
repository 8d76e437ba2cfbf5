package mutation

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is the format version that this package writes and reads.
const Version = 1

// HeaderBytes is the size of an encoded Header.
const HeaderBytes = 18

// ErrFormat is wrapped by every error about bytes that are not a mutation of a known format.
var ErrFormat = errors.New("malformed mutation")

// Kind says what a mutation's body is.
type Kind uint8

const (
	// User is a sequence of operations asked for by this cluster's clients.
	User Kind = 1 + iota
	// Duplicated is one Batch of user mutations of a remote cluster.
	Duplicated
	// Progress is the source side's record of what a remote has confirmed.
	Progress
)

// String is the kind's name.
func (k Kind) String() string {
	switch k {
	case User:
		return "user"
	case Duplicated:
		return "duplicated"
	case Progress:
		return "progress"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Header starts every mutation.
type Header struct {
	Kind      Kind
	Timestamp Timestamp
	// Cluster is the id of the cluster in which the mutation was made.
	Cluster uint64
}

// AppendHeader appends the encoded header to dst.
func AppendHeader(dst []byte, h Header) []byte {
	dst = append(dst, Version, byte(h.Kind))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Timestamp))
	return binary.LittleEndian.AppendUint64(dst, h.Cluster)
}

// ParseHeader reads the header and looks no further.
func ParseHeader(data []byte) (Header, error) {
	if len(data) < HeaderBytes {
		return Header{}, fmt.Errorf("%w: header of %d bytes", ErrFormat, len(data))
	}
	if data[0] != Version {
		return Header{}, fmt.Errorf("%w: version %d", ErrFormat, data[0])
	}
	h := Header{
		Kind:      Kind(data[1]),
		Timestamp: Timestamp(binary.LittleEndian.Uint64(data[2:])),
		Cluster:   binary.LittleEndian.Uint64(data[10:]),
	}
	if h.Kind < User || h.Kind > Progress {
		return Header{}, fmt.Errorf("%w: kind %d", ErrFormat, data[1])
	}
	return h, nil
}

func expectKind(data []byte, want Kind) (Header, error) {
	h, err := ParseHeader(data)
	if err != nil {
		return Header{}, err
	}
	if h.Kind != want {
		return Header{}, fmt.Errorf("%w: %v mutation where a %v one is due", ErrFormat, h.Kind, want)
	}
	return h, nil
}

// takeUvarint cuts a shortest-form uvarint off b.
func takeUvarint(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], true
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// takeBytes cuts a length-prefixed slice off b. The result aliases b and cannot be appended to in place.
func takeBytes(b []byte) (v, rest []byte, ok bool) {
	n, b, ok := takeUvarint(b)
	if !ok || n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

func appendBytes(dst, v []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	return append(dst, v...)
}
