package redis

import (
	"time"

	"replicanode/replica"
	"replicanode/server/resp"
)

func del(tx Tx, o *Op) error {
	for _, i := range o.keys {
		existed, err := tx.Delete(o.args[i])
		if err != nil {
			return err
		}
		if existed {
			o.count++
		}
	}
	return nil
}

func exists(r Reader, o *Op) error {
	for _, i := range o.keys {
		_, ok, err := r.Stat(o.args[i])
		if err != nil {
			return err
		}
		if ok {
			o.count++
		}
	}
	return nil
}

// mergeCount adds the parts' counts.
func mergeCount(w *resp.Reply, o *Op) {
	var sum int64
	for _, part := range o.parts {
		sum += part.count
	}
	w.Int(sum)
}

// prepareExpire parses [P]EXPIRE key time [NX|XX|GT|LT].
func prepareExpire(o *Op) string {
	for _, arg := range o.args[3:] {
		switch {
		case is(arg, "NX"):
			o.options |= optNX
		case is(arg, "XX"):
			o.options |= optXX
		case is(arg, "GT"):
			o.options |= optGT
		case is(arg, "LT"):
			o.options |= optLT
		default:
			return "ERR Unsupported option " + string(arg[:min(len(arg), 64)])
		}
	}
	switch {
	case o.options&optNX != 0 && o.options&^optNX != 0:
		return "ERR NX and XX, GT or LT options at the same time are not compatible"
	case o.options&optGT != 0 && o.options&optLT != 0:
		return "ERR GT and LT options at the same time are not compatible"
	}
	n, ok := parseInt(o.args[2])
	if !ok {
		return errNotInteger
	}
	if o.number, ok = expireTime(n, o.cmd.name == "expire", false); !ok {
		return "ERR invalid expire time in '" + o.cmd.name + "' command"
	}
	o.options |= optExpire
	return ""
}

func expire(tx Tx, o *Op) error {
	v, ok, err := tx.Stat(o.key())
	if err != nil {
		return err
	}
	at := o.deadline(tx.NowMs())
	if !ok || !o.mayExpire(v.ExpireAt, at) {
		o.w.Int(0)
		return nil
	}
	if at <= tx.NowMs() {
		_, err = tx.Delete(o.key())
	} else {
		_, err = tx.Expire(o.key(), at)
	}
	o.w.Int(1)
	return err
}

// mayExpire checks EXPIRE's conditions; a key that does not expire counts as one that expires last.
func (o *Op) mayExpire(old, at uint64) bool {
	switch {
	case o.options&optNX != 0 && old != 0,
		o.options&optXX != 0 && old == 0,
		o.options&optGT != 0 && (old == 0 || at <= old),
		o.options&optLT != 0 && old != 0 && at >= old:
		return false
	}
	return true
}

func persist(tx Tx, o *Op) error {
	v, ok, err := tx.Stat(o.key())
	if err != nil {
		return err
	}
	if !ok || v.ExpireAt == 0 {
		o.w.Int(0)
		return nil
	}
	o.w.Int(1)
	_, err = tx.Expire(o.key(), 0)
	return err
}

func ttl(r Reader, o *Op) error { return timeLeft(r, o, 1000) }

func pttl(r Reader, o *Op) error { return timeLeft(r, o, 1) }

func timeLeft(r Reader, o *Op, unit int64) error {
	v, ok, err := r.Stat(o.key())
	switch {
	case err != nil:
		return err
	case !ok:
		o.w.Int(-2)
	case v.ExpireAt == 0:
		o.w.Int(-1)
	default:
		left := max(int64(v.ExpireAt)-int64(r.NowMs()), 0)
		o.w.Int((left + unit/2) / unit)
	}
	return nil
}

func typeOf(r Reader, o *Op) error {
	v, _, err := r.Stat(o.key())
	if err != nil {
		return err
	}
	o.w.Status(v.Kind.String())
	return nil
}

// scanArgs are the options of SCAN and HSCAN.
type scanArgs struct {
	match []byte // nil: everything
	count int
	kind  []byte // nil: every type
}

const (
	defaultScan = 10
	// mostScan bounds how long one call keeps a snapshot; a scan may always return fewer than COUNT asks for.
	mostScan = 10_000
)

// parseScan parses [MATCH pattern] [COUNT n] [TYPE type].
func parseScan(args [][]byte, types bool) (a scanArgs, text string) {
	a.count = defaultScan
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			return a, errSyntax
		}
		value := args[i+1]
		switch {
		case is(args[i], "COUNT"):
			n, ok := parseInt(value)
			if !ok {
				return a, errNotInteger
			}
			if n < 1 {
				return a, errSyntax
			}
			a.count = int(min(n, mostScan))
		case is(args[i], "MATCH"):
			a.match = value
			if len(value) == 1 && value[0] == '*' {
				a.match = nil
			}
		case types && is(args[i], "TYPE"):
			a.kind = value
		default:
			return a, errSyntax
		}
	}
	return a, ""
}

// parseCursor reads a cursor, which is an unsigned number.
func parseCursor(arg []byte) (uint64, bool) {
	n, ok := parseInt(arg)
	return uint64(n), ok && n >= 0
}

// scanOp reads a slice of one partition's keys.
type scanOp struct {
	args   scanArgs
	cursor uint64
	left   int // bytes of reply it may still take
	keys   resp.Reply
	found  int
	full   bool
}

// Read implements Query.
func (s *scanOp) Read(v View) error {
	next, err := v.Scan(s.cursor, s.args.count, func(key []byte, kind replica.Kind) {
		switch {
		case s.args.kind != nil && !isKind(s.args.kind, kind), s.args.match != nil && !match(s.args.match, key):
		case s.keys.Len()+len(key)+32 > s.left:
			s.full = true
		default:
			s.keys.Bulk(key)
			s.found++
		}
	})
	s.cursor = next
	return err
}

func isKind(name []byte, kind replica.Kind) bool {
	text := kind.String()
	if len(name) != len(text) {
		return false
	}
	for i := range name {
		if name[i]|0x20 != text[i] {
			return false
		}
	}
	return true
}

// scan goes through the partitions one after the other. Its cursor is the partition's number above the partition's own cursor.
func scan(c *conn, args [][]byte) {
	cursor, ok := parseCursor(args[1])
	store := c.server.opts.Store
	p := int(cursor >> replica.CursorBits)
	if !ok || p >= store.Partitions() {
		c.refuse(errCursor)
		return
	}
	options, text := parseScan(args[2:], true)
	if text != "" {
		c.refuse(text)
		return
	}
	s := &scanOp{args: options, cursor: cursor & (1<<replica.CursorBits - 1), left: c.server.opts.MaxReplyBytes}
	err := store.Partition(p).View(c.server.ctx, s)
	w := c.reply()
	switch {
	case err != nil:
		c.server.storeError(w, err)
		return
	case s.full:
		c.server.metrics.refused[refusedReply].Inc()
		w.Error("ERR the reply is longer than the limit: use a smaller COUNT")
		return
	}
	next := uint64(p)<<replica.CursorBits | s.cursor
	if s.cursor == 0 {
		if next = uint64(p+1) << replica.CursorBits; p+1 == store.Partitions() {
			next = 0
		}
	}
	w.Array(2)
	w.BulkInt(int64(next))
	w.Array(s.found)
	w.Raw(s.keys.Buf)
}

// dbsize counts the keys of all partitions.
func dbsize(c *conn, _ [][]byte) {
	began := time.Now()
	n, err := c.server.countKeys(c.server.ctx)
	if err != nil {
		c.server.storeError(c.reply(), err)
		return
	}
	c.server.keys.counted(n, time.Since(began))
	c.reply().Int(int64(n))
}

// flushSlice is how many keys one mutation of FLUSHDB deletes.
const flushSlice = 500

// flushOp collects keys to delete.
type flushOp struct {
	cursor uint64
	keys   [][]byte
}

// Read implements Query.
func (f *flushOp) Read(v View) error {
	next, err := v.Scan(f.cursor, flushSlice, func(key []byte, _ replica.Kind) { f.keys = append(f.keys, append([]byte(nil), key...)) })
	f.cursor = next
	return err
}

// flush deletes the keys of each partition, slice by slice.
func flush(c *conn, args [][]byte) {
	if len(args) > 2 || len(args) == 2 && !is(args[1], "ASYNC") && !is(args[1], "SYNC") {
		c.refuse(errSyntax)
		return
	}
	for p := range c.server.opts.Store.Partitions() {
		if err := c.flushPartition(p); err != nil {
			c.server.storeError(&c.out, err)
			return
		}
	}
	c.out.OK()
}

func (c *conn) flushPartition(p int) error {
	cmd := c.server.table.byName["del"]
	f := &flushOp{}
	for {
		f.keys = f.keys[:0]
		if err := c.server.opts.Store.Partition(p).View(c.server.ctx, f); err != nil {
			return err
		}
		o := c.take(cmd, f.keys)
		for i := range f.keys {
			o.keys = append(o.keys, i)
		}
		c.proposeOrFail(o, p)
		c.wait()
		err := o.err
		c.recycle(o)
		if err != nil || f.cursor == 0 {
			return err
		}
	}
}
