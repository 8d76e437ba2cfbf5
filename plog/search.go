package plog

import (
	"bytes"
	"encoding/binary"
)

// resume moves the scanner to the next frame header of this segment behind a damaged place.
func (s *scanner) resume(from int64) (more bool, err error) {
	off, h, err := s.search(from, func(*frameHeader) bool { return true })
	if err != nil || off == 0 {
		return false, err
	}
	s.off, s.link, s.term = off, h.link, 0
	if h.count > 0 {
		s.next = h.first
	}
	return true, nil
}

// proof looks behind a damaged place at from for a frame that says everything before it was synced. It returns
// the offset of the first such frame, 0 when there is none.
func (s *scanner) proof(from int64) (int64, error) {
	off, _, err := s.search(from, func(h *frameHeader) bool { return h.flags&flagSynced != 0 })
	return off, err
}

// search finds the first frame header behind from that accept wants; offset 0 when there is none.
func (s *scanner) search(from int64, accept func(*frameHeader) bool) (int64, frameHeader, error) {
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], frameMagic)
	const overlap = frameHeaderLen + hardStateLen
	var h frameHeader
	for off := from + 1; off < s.end; {
		n := int(min(scanBuffer, s.end-off))
		b, err := s.window(off, n)
		if err != nil || len(b) < frameHeaderLen {
			return 0, h, err
		}
		for at := 4; at < len(b); at++ {
			i := bytes.Index(b[at:], magic[:])
			if i < 0 {
				break
			}
			at += i
			if place := off + int64(at-4); parseFrameHeader(b[at-4:], s.key, place, &h) && accept(&h) {
				return place, h, nil
			}
		}
		if len(b) < n || int64(n) == s.end-off {
			return 0, h, nil
		}
		off += int64(len(b) - overlap)
	}
	return 0, h, nil
}
