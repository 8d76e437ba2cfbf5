package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"replicanode/replica"
)

const (
	manifestName     = "MANIFEST.json"
	manifestPrefix   = `{"crc32c":"`
	manifestMiddle   = `","body":`
	manifestSuffix   = "}\n"
	maxManifestBytes = 256 << 20
)

// Manifest describes one checkpoint. It is written last: a checkpoint without
// one does not exist.
type Manifest struct {
	FormatVersion int    `json:"format_version"`
	ClusterID     uint64 `json:"cluster_id"` // cluster the data came from, 0 = unknown
	Partition     uint32 `json:"partition"`
	Partitions    uint32 `json:"partitions"` // how many the keyspace is split into, 0 = unknown
	Decree        uint64 `json:"decree"`     // the state is exactly that after this decree
	Term          uint64 `json:"term"`       // Raft term of that decree's entry

	// Mark tells another history apart that has the same decree; "" = unknown.
	Mark string `json:"mark,omitempty"`

	Created time.Time `json:"created"` // when the copy was begun, UTC

	// Parent is the decree of the checkpoint this one builds on, 0 for a full
	// one. ParentCRC is that checkpoint's manifest checksum: a chain is made of
	// exactly these copies. Depth is the number of ancestors.
	Parent    uint64 `json:"parent"`
	ParentCRC string `json:"parent_crc32c,omitempty"`
	Depth     int    `json:"depth"`

	Entries  uint64  `json:"entries"`   // of all chunks
	Deletes  uint64  `json:"deletes"`   // those among them that are deletes
	RawBytes uint64  `json:"raw_bytes"` // before compression
	Bytes    int64   `json:"bytes"`     // of all chunk files
	Chunks   []Chunk `json:"chunks"`    // in key order

	// CRC is the checksum of the manifest as it stands in its file. It identifies
	// this copy; it is not part of the body.
	CRC string `json:"-"`
}

// Chunk describes one chunk file.
type Chunk struct {
	Name     string `json:"name"`
	Size     int64  `json:"size"`      // file bytes
	CRC32C   string `json:"crc32c"`    // of all file bytes, eight hexadecimal digits
	Entries  uint64 `json:"entries"`   // in this chunk
	RawBytes uint64 `json:"raw_bytes"` // before compression
	First    []byte `json:"first"`     // smallest key, base64
	Last     []byte `json:"last"`      // greatest key, base64
}

// Full tells whether the checkpoint stands alone.
func (m *Manifest) Full() bool { return m.Parent == 0 }

// behind tells whether the state is one that was there before the time of another mark. One of which nothing
// was written yet has no time, and is, too; a source without marks cannot tell.
func (m *Manifest) behind(time uint64) bool {
	return m.Mark != "" && replica.MarkTime(m.Mark) < time
}

func crcString(crc uint32) string { return fmt.Sprintf("%08x", crc) }

// encode returns the bytes of the manifest's file and sets m.CRC.
func (m *Manifest) encode() (out []byte, err error) {
	out, m.CRC, err = encodeFramed(m)
	return out, err
}

// encodeFramed returns the bytes of a manifest file whose body is v, and its checksum.
func encodeFramed(v any) (out []byte, crc string, err error) {
	body, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, "", fmt.Errorf("encode manifest: %w", err)
	}
	crc = crcString(crc32.Checksum(body, castagnoli))
	out = make([]byte, 0, len(body)+64)
	out = append(out, manifestPrefix...)
	out = append(out, crc...)
	out = append(out, manifestMiddle...)
	out = append(out, body...)
	return append(out, manifestSuffix...), crc, nil
}

// parseFramed checks the frame of a manifest file and decodes its body into v.
func parseFramed(path string, b []byte, v any) (crc string, err error) {
	bad := func(reason string, args ...any) error {
		return &CorruptError{Path: path, Reason: fmt.Sprintf(reason, args...)}
	}
	rest, ok := bytes.CutPrefix(b, []byte(manifestPrefix))
	if !ok || len(rest) < 8 {
		return "", bad("not a manifest")
	}
	crc = string(rest[:8])
	rest, ok = bytes.CutPrefix(rest[8:], []byte(manifestMiddle))
	if !ok {
		return "", bad("not a manifest")
	}
	body, ok := bytes.CutSuffix(rest, []byte(manifestSuffix))
	if !ok {
		return "", bad("manifest does not end as it must")
	}
	if got := crcString(crc32.Checksum(body, castagnoli)); got != crc {
		return "", bad("manifest checksum is %s, not %s", got, crc)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return "", bad("cannot parse manifest: %v", err)
	}
	return crc, nil
}

// parseManifest decodes and validates the bytes of a manifest file.
func parseManifest(path string, b []byte) (*Manifest, error) {
	m := &Manifest{}
	crc, err := parseBody(path, b, m)
	if err != nil {
		return nil, err
	}
	m.CRC = crc
	return m, nil
}

// body is what a manifest's frame holds.
type body interface {
	version() int
	validate() error
}

// parseBody decodes the bytes of a manifest's file into m and validates it.
func parseBody(path string, b []byte, m body) (crc string, err error) {
	if crc, err = parseFramed(path, b, m); err != nil {
		return "", err
	}
	if m.version() != FormatVersion {
		return "", fmt.Errorf("manifest %s: %w: %d", path, ErrFormatVersion, m.version())
	}
	if err := m.validate(); err != nil {
		return "", &CorruptError{Path: path, Reason: err.Error()}
	}
	return crc, nil
}

func (m *Manifest) version() int { return m.FormatVersion }

// validate holds the manifest's parts against each other.
func (m *Manifest) validate() error {
	switch {
	case m.Parent >= m.Decree && m.Parent != 0:
		return fmt.Errorf("parent %d is not below decree %d", m.Parent, m.Decree)
	case m.Full() && (m.ParentCRC != "" || m.Depth != 0 || m.Deletes != 0):
		return errors.New("a full checkpoint with a parent's traits")
	case !m.Full() && (m.ParentCRC == "" || m.Depth <= 0):
		return errors.New("an incremental checkpoint without its parent's traits")
	case m.Deletes > m.Entries:
		return errors.New("more deletes than entries")
	case len(m.Chunks) > maxChunks:
		return fmt.Errorf("%d chunks", len(m.Chunks))
	}
	var sum Manifest
	for i := range m.Chunks {
		c := &m.Chunks[i]
		switch {
		case c.Name != chunkID{number: uint32(i + 1)}.name():
			return fmt.Errorf("chunk %d is named %q", i+1, c.Name)
		case c.Size < chunkHeaderSize+blockHeaderSize+endPayloadSize, c.Entries == 0:
			return fmt.Errorf("chunk %s is empty", c.Name)
		case len(c.First) == 0, bytes.Compare(c.First, c.Last) > 0,
			i > 0 && bytes.Compare(m.Chunks[i-1].Last, c.First) >= 0:
			return fmt.Errorf("chunk %s has its keys out of order", c.Name)
		}
		sum.Bytes += c.Size
		sum.Entries += c.Entries
		sum.RawBytes += c.RawBytes
	}
	if sum.Bytes != m.Bytes || sum.Entries != m.Entries || sum.RawBytes != m.RawBytes {
		return errors.New("totals differ from the sum of the chunks")
	}
	return nil
}
