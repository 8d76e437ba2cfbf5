package load

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
)

const (
	// MaxRate bounds an open-loop rate, requests a second.
	MaxRate = 10_000_000
	// MaxKeys bounds a key space.
	MaxKeys = 1 << 30
	// MaxValueSize bounds a value, bytes.
	MaxValueSize = 4 << 20
	// MinStampedValue is the least size of a value that carries the number of its write, bytes.
	MinStampedValue = stampDigits + 1

	keyDigits   = 10
	stampDigits = 10
	fillerBytes = 1 << 16
)

// Workload says which operations are made. The same Workload always makes the same operations in the same order.
type Workload struct {
	// Keys is the number of keys, 1 to MaxKeys. Default 100,000.
	Keys uint32
	// Dist is how often each key is used. Default Uniform.
	Dist Distribution
	// Theta is the exponent of the Zipfian distribution, above 0 and at most 5. Default 0.99, as YCSB uses.
	Theta float64
	// ValueSize is the size of every value in bytes, 1 to MaxValueSize. Default 100.
	ValueSize int
	// Reads and Writes weigh the two kinds of operation; both 0 means writes only.
	Reads, Writes uint32
	// Prefix begins every key, at most 128 bytes. Default "key:".
	Prefix string
	// Seed fixes keys, kinds and values. Any value; default 0.
	Seed uint64
}

// EnsureDefaults fills the fields that are zero.
func (w *Workload) EnsureDefaults() {
	w.Keys = cmp.Or(w.Keys, 100_000)
	w.Dist = cmp.Or(w.Dist, Uniform)
	w.Theta = cmp.Or(w.Theta, 0.99)
	w.ValueSize = cmp.Or(w.ValueSize, 100)
	if w.Reads == 0 && w.Writes == 0 {
		w.Writes = 1
	}
	w.Prefix = cmp.Or(w.Prefix, "key:")
}

// Validate checks every field after EnsureDefaults.
func (w *Workload) Validate() error {
	switch {
	case w.Keys < 1 || w.Keys > MaxKeys:
		return fmt.Errorf("keys %d: must be between 1 and %d", w.Keys, MaxKeys)
	case w.Dist != Uniform && w.Dist != Zipfian:
		return fmt.Errorf("dist %q: must be %q or %q", w.Dist, Uniform, Zipfian)
	case !(w.Theta > 0) || w.Theta > 5:
		return fmt.Errorf("theta %v: must be above 0 and at most 5", w.Theta)
	case w.ValueSize < 1 || w.ValueSize > MaxValueSize:
		return fmt.Errorf("value-size %d: must be between 1 and %d", w.ValueSize, MaxValueSize)
	case w.Reads == 0 && w.Writes == 0:
		return errors.New("ratio 0:0: at least one side must be above 0")
	case w.Reads > 1<<20 || w.Writes > 1<<20:
		return fmt.Errorf("ratio %d:%d: each side must be at most %d", w.Reads, w.Writes, 1<<20)
	case len(w.Prefix) > 128:
		return fmt.Errorf("prefix of %d bytes: must be at most 128", len(w.Prefix))
	}
	return nil
}

// op is one operation: a read of a key, or its write number seq.
type op struct {
	key  uint32
	seq  uint32
	read bool
}

// generator draws operations and encodes them. It belongs to one goroutine.
type generator struct {
	rng    *rand.Rand
	keys   picker
	mix    uint32 // reads + writes
	reads  uint32
	ledger *Ledger // nil: writes are numbered as they come
	seq    uint32
	codec  codec
}

func newGenerator(w Workload, stream uint64, l *Ledger) (*generator, error) {
	keys, err := newPicker(w.Dist, w.Keys, w.Theta)
	if err != nil {
		return nil, err
	}
	return &generator{
		rng:    newRand(w.Seed, streamOperations+stream),
		keys:   keys,
		mix:    w.Reads + w.Writes,
		reads:  w.Reads,
		ledger: l,
		codec:  newCodec(w),
	}, nil
}

func (g *generator) next() op {
	o := op{key: g.keys.pick(g.rng)}
	if g.reads > 0 && (g.reads == g.mix || g.rng.Uint32N(g.mix) < g.reads) {
		o.read = true
		return o
	}
	if g.ledger != nil {
		o.seq = g.ledger.issue(o.key)
	} else {
		g.seq++
		o.seq = g.seq
	}
	return o
}

// codec encodes operations of one workload. What all of them share is laid out once.
type codec struct {
	set, get []byte // the request up to the key's digits
	mid      []byte // between key and value of a SET
	size     int
	filler   []byte
}

func newCodec(w Workload) codec {
	keyLen := strconv.Itoa(len(w.Prefix) + keyDigits)
	c := codec{
		set:  []byte("*3\r\n$3\r\nSET\r\n$" + keyLen + "\r\n" + w.Prefix),
		get:  []byte("*2\r\n$3\r\nGET\r\n$" + keyLen + "\r\n" + w.Prefix),
		mid:  []byte("\r\n$" + strconv.Itoa(w.ValueSize) + "\r\n"),
		size: w.ValueSize,
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	c.filler = make([]byte, fillerBytes+min(w.ValueSize, fillerBytes))
	rng := newRand(w.Seed, streamFiller)
	for i := range c.filler {
		c.filler[i] = alphabet[rng.Uint64()&63]
	}
	return c
}

// append adds the request of o to buf.
func (c *codec) append(buf []byte, o op) []byte {
	if o.read {
		buf = append(buf, c.get...)
		buf = appendDigits(buf, o.key)
		return append(buf, '\r', '\n')
	}
	buf = append(buf, c.set...)
	buf = appendDigits(buf, o.key)
	buf = append(buf, c.mid...)
	rest := c.size
	if rest >= MinStampedValue {
		buf = appendDigits(buf, o.seq)
		buf = append(buf, ':')
		rest -= MinStampedValue
	}
	from := int((o.key*2654435761 + o.seq*40503) % fillerBytes)
	for rest > 0 {
		n := min(rest, len(c.filler)-from)
		buf = append(buf, c.filler[from:from+n]...)
		rest, from = rest-n, 0
	}
	return append(buf, '\r', '\n')
}

// appendDigits writes n as 10 digits, which hold any uint32.
func appendDigits(buf []byte, n uint32) []byte {
	var d [keyDigits]byte
	for i := keyDigits - 1; i >= 0; i-- {
		d[i] = byte('0' + n%10)
		n /= 10
	}
	return append(buf, d[:]...)
}

// stamp reads the number of the write that made a value.
func stamp(value []byte) (uint32, error) {
	if len(value) < MinStampedValue || value[stampDigits] != ':' {
		return 0, fmt.Errorf("value %.24q carries no write number", value)
	}
	n, err := strconv.ParseUint(string(value[:stampDigits]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("value %.24q carries no write number", value)
	}
	return uint32(n), nil
}
