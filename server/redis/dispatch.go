package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"replicanode/replica"
	"replicanode/server/resp"
)

// reply returns where the answer to a command goes that is answered at once.
func (c *conn) reply() *resp.Reply {
	if len(c.queue) == 0 {
		return &c.out
	}
	o := c.take(nil, nil)
	c.queue = append(c.queue, o)
	return &o.own
}

// refuse answers a command with an error found before it was executed.
func (c *conn) refuse(text string) {
	c.server.metrics.errors.Inc()
	c.reply().Error(text)
}

// dispatch executes a request, or has it executed: its reply is in out, or comes with settle.
func (c *conn) dispatch(args [][]byte) {
	if c.began.IsZero() {
		c.began = time.Now()
		c.requestSince = time.Time{}
	}
	cmd := c.server.table.find(args[0])
	if cmd == nil {
		c.unknown(args)
		return
	}
	cmd.calls.Inc()
	if !cmd.arityFits(len(args)) {
		c.refuse("ERR wrong number of arguments for '" + cmd.name + "' command")
		return
	}
	if !c.authed && cmd.flags&flagNoAuth == 0 {
		c.refuse("NOAUTH Authentication required.")
		return
	}
	if cmd.flags&flagLoading == 0 && !c.server.ready.Load() {
		c.server.metrics.refused[refusedLoading].Inc()
		c.refuse("LOADING " + c.server.opts.Loading())
		return
	}
	if cmd.flags&flagWrite != 0 {
		c.writes++
		if cmd.local != nil && c.isGated(c.server.allPartitions) {
			return
		}
	} else {
		c.reads++
	}
	switch {
	case cmd.local != nil:
		if cmd.flags&flagFast == 0 {
			// Its reply may be long: it goes out rather than wait behind others.
			c.settle()
		}
		cmd.local(c, args)
	case cmd.merge != nil:
		c.runMany(cmd, args)
	default:
		c.runOne(cmd, args)
	}
}

// isGated refuses a command that writes when the gate of one of the partitions is closed: no part of it may take effect.
func (c *conn) isGated(partitions func(yield func(p int) bool)) bool {
	gate := c.server.opts.WriteGate
	if gate == nil {
		return false
	}
	for p := range partitions {
		if err := gate(p); err != nil {
			c.server.metrics.refused[refusedGate].Inc()
			c.refuse(withCode(err.Error()))
			return true
		}
	}
	return false
}

// allPartitions yields every partition.
func (s *Server) allPartitions(yield func(p int) bool) {
	for p := range s.opts.Store.Partitions() {
		if !yield(p) {
			return
		}
	}
}

// concerned yields the partitions of a command over many keys.
func (o *Op) concerned(yield func(p int) bool) {
	for _, part := range o.parts {
		if !yield(part.partition) {
			return
		}
	}
}

// unknown answers a command that does not exist.
func (c *conn) unknown(args [][]byte) {
	c.server.metrics.unknown.Inc()
	if name := args[0]; bytes.EqualFold(name, []byte("post")) || bytes.EqualFold(name, []byte("host:")) {
		// A browser was made to send an HTTP request here: what follows may be commands that its user did not mean.
		c.server.metrics.refused[refusedSecurity].Inc()
		c.log("a client that speaks HTTP")
		c.closing = true
		return
	}
	const longest = 128
	var b strings.Builder
	fmt.Fprintf(&b, "ERR unknown command '%.*s', with args beginning with: ", longest, args[0])
	for _, arg := range args[1:] {
		if b.Len() > longest {
			break
		}
		fmt.Fprintf(&b, "'%.*s' ", longest, arg)
	}
	c.refuse(b.String())
}

// withCode puts ERR before an error text that does not begin with a code of its own.
func withCode(text string) string {
	code, _, _ := strings.Cut(text, " ")
	for _, r := range code {
		if r < 'A' || r > 'Z' {
			return "ERR " + text
		}
	}
	if code == "" {
		return "ERR " + text
	}
	return text
}

// runOne executes a command that concerns one key.
func (c *conn) runOne(cmd *command, args [][]byte) {
	o := c.take(cmd, args)
	if cmd.prepare != nil {
		if text := cmd.prepare(o); text != "" {
			c.recycle(o)
			c.refuse(text)
			return
		}
	}
	p := c.server.opts.Store.Route(o.key())
	switch {
	case cmd.write != nil:
		if c.isGated(func(yield func(int) bool) { yield(p) }) {
			c.recycle(o)
			return
		}
		c.reserve(o)
		c.proposeOrFail(o, p)
		c.queue = append(c.queue, o)
	case cmd.read != nil && c.isDirty(p):
		// The read must see this connection's writes before it, which are not applied yet. Executed behind them it does, without a
		// wait for each.
		c.reserve(o)
		if c.propose(o, p) == nil {
			c.queue = append(c.queue, o)
			return
		}
		c.wait()
		c.readNow(o, p)
	default:
		if c.isDirty(p) {
			c.wait()
		}
		c.readNow(o, p)
	}
}

// reserve makes sure that the replies of ops that return values have room.
func (c *conn) reserve(o *Op) {
	if o.cmd.flags&flagBulky == 0 && o.options&optGet == 0 {
		return
	}
	n := int64(c.server.opts.Limits.MaxBulkBytes)
	if c.reserved.Load()+n > int64(c.server.opts.MaxReplyBytes) {
		c.settle()
	}
	o.reserved = n
	c.reserved.Add(n)
}

// readNow executes a read on a snapshot, and its reply goes out directly when no other is outstanding.
func (c *conn) readNow(o *Op, p int) {
	direct := len(c.queue) == 0
	if direct {
		o.w = &c.out
	}
	c.readPart(o, p, c.server.opts.MaxReplyBytes)
	if !direct {
		c.keep(o)
		return
	}
	if o.err != nil {
		c.server.storeError(&c.out, o.err)
	}
	c.recycle(o)
}

// keep queues an op whose reply is complete but has to wait for those before it. Replies that wait are bounded together.
func (c *conn) keep(o *Op) {
	c.queue = append(c.queue, o)
	n := int64(o.own.Len())
	for _, part := range o.parts {
		n += int64(part.own.Len())
	}
	o.reserved += n
	if c.reserved.Add(n) > int64(c.server.opts.MaxReplyBytes) {
		c.settle()
	}
}

// readPart executes a read on a snapshot; its reply may take limit bytes.
func (c *conn) readPart(o *Op, p, limit int) {
	o.start, o.limit = o.w.Len(), limit
	err := c.server.opts.Store.Partition(p).View(c.server.ctx, o)
	if err != nil {
		o.w.Truncate(o.start)
		o.err = err
	}
}

// runMany executes a command over many keys: one op for each partition concerned.
func (c *conn) runMany(cmd *command, args [][]byte) {
	o := c.take(cmd, args)
	if cmd.prepare != nil {
		if text := cmd.prepare(o); text != "" {
			c.recycle(o)
			c.refuse(text)
			return
		}
	}
	c.split(o)
	if cmd.write != nil {
		if n, limit := o.largestPart(), c.server.opts.MaxMutationBytes; n > limit {
			c.recycle(o)
			c.refuse(fmt.Sprintf("ERR command of %d bytes exceeds the limit of %d", n, limit))
			return
		}
		if c.isGated(o.concerned) {
			c.recycle(o)
			return
		}
		for _, part := range o.parts {
			c.proposeOrFail(part, part.partition)
		}
		c.queue = append(c.queue, o)
		return
	}
	for _, part := range o.parts {
		if c.isDirty(part.partition) {
			c.wait()
			break
		}
	}
	left := c.server.opts.MaxReplyBytes
	for _, part := range o.parts {
		c.readPart(part, part.partition, left)
		left -= part.own.Len()
	}
	if len(c.queue) > 0 {
		c.keep(o)
		return
	}
	o.emit(&c.out)
	c.recycle(o)
}

// split makes the parts of a command over many keys.
func (c *conn) split(o *Op) {
	store := c.server.opts.Store
	if c.partOf == nil {
		c.partOf = make([]*Op, store.Partitions())
	}
	for i := o.cmd.first; i < len(o.args); i += o.cmd.step {
		p := store.Route(o.args[i])
		part := c.partOf[p]
		if part == nil {
			part = c.take(o.cmd, o.args)
			part.partition = p
			part.keys, part.ends = part.keys[:0], part.ends[:0]
			c.partOf[p] = part
			o.parts = append(o.parts, part)
		}
		part.keys = append(part.keys, i)
	}
	for _, part := range o.parts {
		c.partOf[part.partition] = nil
	}
}

// largestPart is more than the store needs to encode any part of a command over many keys: no part may be refused for its size when
// others take effect.
func (o *Op) largestPart() (largest int) {
	const overhead = 32 // of a write beside its key and value
	for _, part := range o.parts {
		n := 0
		for _, i := range part.keys {
			n += overhead
			for _, arg := range o.args[i:min(i+o.cmd.step, len(o.args))] {
				n += len(arg)
			}
		}
		largest = max(largest, n)
	}
	return largest
}

// isDirty reports whether ops of this connection may be under way on a partition.
func (c *conn) isDirty(p int) bool {
	return c.dirtied && c.dirty[p/64]&(1<<(p%64)) != 0
}

// proposeOrFail proposes an op; when that is refused, the reply is the refusal.
func (c *conn) proposeOrFail(o *Op, p int) {
	if err := c.propose(o, p); err != nil {
		o.err = err
	}
}

// propose hands an op to its partition. While the partition's queue is full it waits, so that a client is slowed down rather than refused.
// Without an error the op is the partition's, until it is finished.
func (c *conn) propose(o *Op, p int) error {
	o.start, o.limit = 0, c.server.opts.MaxReplyBytes
	if c.dirty == nil {
		c.dirty = make([]uint64, (c.server.opts.Store.Partitions()+63)/64)
	}
	part := c.server.opts.Store.Partition(p)
	c.pending.Add(1)
	err := part.Propose(o)
	if err != nil {
		c.pending.Add(-1)
		if errors.Is(err, replica.ErrBusy) {
			err = c.proposeAgain(part, o)
		}
	}
	if err == nil {
		c.dirtied = true
		c.dirty[p/64] |= 1 << (p % 64)
	}
	return err
}

// proposeAgain repeats Propose until there is room or BusyTimeout is over.
func (c *conn) proposeAgain(part Partition, o *Op) error {
	const shortest, longest = time.Millisecond, 20 * time.Millisecond
	// What this connection has in the queue makes room first.
	c.wait()
	give := time.Now().Add(c.server.opts.BusyTimeout)
	for pause := shortest; ; pause = min(2*pause, longest) {
		c.pending.Add(1)
		err := part.Propose(o)
		if err == nil {
			return nil
		}
		c.pending.Add(-1)
		if !errors.Is(err, replica.ErrBusy) {
			return err
		}
		if !time.Now().Before(give) {
			c.server.metrics.refused[refusedBusy].Inc()
			return err
		}
		select {
		case <-c.server.ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}
