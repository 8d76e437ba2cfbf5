package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// maxUnowed bounds how many writes without an acknowledgement a ledger remembers one by one.
const maxUnowed = 1 << 20

// Ledger remembers which writes were acknowledged: the writes of a key are numbered 1, 2, 3 … and all of them travel on one
// connection, so the highest acknowledged number and those below it that were not acknowledged say everything. It takes 8 bytes a
// key.
//
// While a driver runs, the ledger is the driver's; ask it anything only after the driver has stopped. Several drivers may fill it,
// one after the other.
type Ledger struct {
	issued []uint32 // written by the goroutine that makes requests
	acked  []uint32 // each key written by the goroutine that reads its connection

	mu      sync.Mutex
	unowed  map[uint64]struct{} // key<<32 | number, of writes that were refused, not sent or not answered
	inexact bool                // there were more than fit
}

// NewLedger makes a ledger for this many keys, 1 to MaxKeys.
func NewLedger(keys uint32) *Ledger {
	return &Ledger{issued: make([]uint32, keys), acked: make([]uint32, keys), unowed: map[uint64]struct{}{}}
}

func (l *Ledger) issue(key uint32) uint32 {
	l.issued[key]++
	return l.issued[key]
}

func (l *Ledger) acknowledge(key, seq uint32) { l.acked[key] = seq }

// disown remembers that nobody acknowledged an operation. A nil ledger and reads are none of its business.
func (l *Ledger) disown(o op) {
	if l == nil || o.read {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.unowed) >= maxUnowed {
		l.inexact = true
		return
	}
	l.unowed[uint64(o.key)<<32|uint64(o.seq)] = struct{}{}
}

// Acknowledged returns how many writes were acknowledged.
func (l *Ledger) Acknowledged() uint64 {
	var n uint64
	for _, a := range l.acked {
		n += uint64(a)
	}
	for w := range l.unowed {
		if uint32(w) < l.acked[w>>32] {
			n--
		}
	}
	return n
}

// missing counts the acknowledged writes of key above found.
func (l *Ledger) missing(key, found uint32) uint64 {
	acked := l.acked[key]
	if found >= acked {
		return 0
	}
	n := uint64(acked - found)
	if len(l.unowed) > 0 {
		for seq := found + 1; seq < acked; seq++ {
			if _, ok := l.unowed[uint64(key)<<32|uint64(seq)]; ok {
				n--
			}
		}
	}
	return n
}

// Verdict is what a server holds, compared with a ledger.
type Verdict struct {
	// Acknowledged is how many writes the ledger knows to be acknowledged.
	Acknowledged uint64 `json:"acknowledged"`
	// Lost is how many of them the server lacks: for each key, those that were acknowledged after the write it holds.
	Lost uint64 `json:"lost"`
	// KeysShort is how many keys hold an older write than their last acknowledged one.
	KeysShort uint64 `json:"keys_short"`
	// Unacknowledged is how many keys hold a newer write than their last acknowledged one: sent, applied, never answered.
	Unacknowledged uint64 `json:"unacknowledged"`
	// Inexact says that more writes were not acknowledged than the ledger remembers: Acknowledged and Lost may then be too high.
	Inexact bool `json:"inexact,omitempty"`
}

// errNeverWritten marks a value with a number that no write had.
var errNeverWritten = errors.New("a value that was never written")

// ReadBack reads every key of the workload from the server at addr and compares it with the ledger. The driver that filled the
// ledger must have stopped. An error says that the comparison could not be made, or that a key holds what nobody wrote.
func ReadBack(ctx context.Context, addr, password string, w Workload, l *Ledger) (v Verdict, err error) {
	w.EnsureDefaults()
	conn, err := dial(ctx, addr, password)
	if err != nil {
		return Verdict{}, err
	}
	defer conn.Close()
	// An end of ctx cuts the connection, and is the reason that counts.
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	v = Verdict{Acknowledged: l.Acknowledged(), Inexact: l.inexact}
	c, in := newCodec(w), newReplies(conn)
	var out []byte
	for first := uint32(0); first < w.Keys; first += readBackBatch {
		n := min(readBackBatch, w.Keys-first)
		out = out[:0]
		for k := first; k < first+n; k++ {
			out = c.append(out, op{key: k, read: true})
		}
		if _, err := conn.Write(out); err != nil {
			return v, fmt.Errorf("read back from %s: %w", addr, err)
		}
		for k := first; k < first+n; k++ {
			r, err := in.one()
			if err == nil {
				err = v.judge(l, k, r)
			}
			if err != nil {
				return v, fmt.Errorf("read back key %d from %s: %w", k, addr, err)
			}
		}
	}
	return v, nil
}

// readBackBatch is how many reads are sent before their answers are read. Their requests must fit the socket buffers of both
// sides, or both could wait for each other.
const readBackBatch = 256

func (v *Verdict) judge(l *Ledger, key uint32, r reply) error {
	var found uint32
	switch {
	case r.kind == '-':
		return errors.New(string(r.text))
	case r.kind != '$':
		return fmt.Errorf("%w: reply of type %q to GET", errProtocol, r.kind)
	case !r.null:
		var err error
		if found, err = stamp(r.text); err != nil {
			return err
		}
	}
	if found > l.issued[key] {
		return fmt.Errorf("%w: number %d of %d", errNeverWritten, found, l.issued[key])
	}
	if lost := l.missing(key, found); lost > 0 {
		v.Lost += lost
		v.KeysShort++
	}
	if found > l.acked[key] {
		v.Unacknowledged++
	}
	return nil
}
