package redis

import (
	"errors"
	"slices"
	"strconv"

	"replicanode/replica"
	"replicanode/server/resp"
)

// Op is one command's work on one partition. Ops belong to their connection, which uses them again: a Store must not keep one
// after Finish.
//
// An Op is owned by its connection until Propose accepts it, by the partition until Finish returns, and by the connection again
// after it. Its arguments are parts of the connection's read buffer, which stays as it is until all the connection's ops finished.
type Op struct {
	c    *conn
	cmd  *command
	args [][]byte

	// w is where the reply goes: the op's own buffer, or the connection's when no reply is outstanding before this one.
	w   *resp.Reply
	own resp.Reply

	// What the command's arguments were parsed to; the meaning belongs to the command.
	options options
	number  int64

	// A command over many keys is one op for each partition: keys are the positions in args of this part's keys, ends the places
	// in own where the answers to them end, count a part of a sum.
	keys  []int
	ends  []int
	count int64
	next  int // merging: the next of ends
	parts []*Op

	partition int
	start     int // where the reply begins in w
	limit     int // how long the reply may get

	reserved int64 // bytes of reply reserved with the connection
	held     int   // bytes of reply taken from the server's budget
	failed   bool  // the reply is an error
	panicked bool
	err      error // what the store says instead of executing
}

// key is the command's first key.
func (o *Op) key() []byte { return o.args[o.cmd.first] }

// fail makes the reply an error and drops what was written of it.
func (o *Op) fail(text string) {
	o.failed = true
	o.w.Truncate(o.start)
	o.w.Error(text)
}

// Execute runs the command against tx. When it panics, nothing of it may take effect, and Finish must be given a *replica.PanicError.
func (o *Op) Execute(tx Tx) {
	var err error
	if o.cmd.write != nil {
		err = o.cmd.write(tx, o)
	} else {
		err = o.cmd.read(tx, o)
	}
	if err != nil {
		o.err = err
	}
	if o.reserved > 0 {
		o.c.reserved.Add(int64(len(o.own.Buf)) - o.reserved)
		o.reserved = int64(len(o.own.Buf))
	}
}

// Read implements Query.
func (o *Op) Read(v View) error {
	if o.cmd.view != nil {
		return o.cmd.view(v, o)
	}
	return o.cmd.read(v, o)
}

// Finish tells the op that what Execute read and wrote is durable, committed and applied, or that it is not: err. It must be
// called exactly once.
func (o *Op) Finish(err error) {
	c := o.c
	if err != nil {
		o.err = err
		var bug *replica.PanicError
		if errors.As(err, &bug) {
			o.panicked = true
			c.server.panicked(c, bug.Value, bug.Stack)
		}
	}
	if c.pending.Add(-1) == 0 {
		c.wake <- struct{}{}
	}
}

// unread reports whether a read was refused, or not known to be current, because of what was proposed before it.
func (o *Op) unread() bool {
	return o.cmd != nil && o.cmd.read != nil && o.cmd.write == nil && o.parts == nil &&
		(errors.Is(o.err, replica.ErrNoSpace) || errors.Is(o.err, replica.ErrResultUnknown))
}

// wrote reports whether the op has changed the partition, as far as is known.
func (o *Op) wrote(partition int) bool {
	switch {
	case o.cmd == nil || o.cmd.write == nil || o.err != nil:
		return false
	case o.parts == nil:
		return o.c.server.opts.Store.Route(o.key()) == partition
	}
	return slices.ContainsFunc(o.parts, func(part *Op) bool { return part.err == nil && part.partition == partition })
}

// room reports whether the reply may grow by n bytes, and makes it an error when it may not.
func (o *Op) room(n int) bool {
	const step = 1 << 20 // what is taken from the budget at a time, at least
	size := o.w.Len() - o.start + n
	if size > o.limit {
		o.c.server.metrics.refused[refusedReply].Inc()
		o.fail("ERR the reply is longer than the limit of " + strconv.Itoa(o.c.server.opts.MaxReplyBytes) + " bytes")
		return false
	}
	if more := size - keepReplies - o.held; more > 0 {
		if more = max(more, step); !o.c.server.budget.Take(more) {
			o.c.server.metrics.refused[refusedBuffers].Inc()
			o.fail("ERR no memory left for the reply")
			return false
		}
		o.held += more
	}
	return true
}

// emit appends the reply to w. It is called once the op and its parts are finished.
func (o *Op) emit(w *resp.Reply) {
	for _, part := range o.parts {
		if part.err != nil {
			o.c.server.storeError(w, part.err)
			return
		}
		if part.failed {
			w.Raw(part.own.Buf)
			return
		}
	}
	switch {
	case o.err != nil:
		o.c.server.storeError(w, o.err)
	case o.parts != nil:
		o.cmd.merge(w, o)
	case o.w == &o.own:
		w.Raw(o.own.Buf)
	}
}

const (
	keepOps      = 64       // ops a connection keeps for later
	keepOpBuffer = 16 << 10 // reply buffer an op keeps
	keepOpKeys   = 256      // key positions an op keeps room for
)

// take returns a fresh op for a command.
func (c *conn) take(cmd *command, args [][]byte) *Op {
	var o *Op
	if n := len(c.free); n > 0 {
		o = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		o = &Op{c: c}
	}
	o.cmd, o.args = cmd, args
	o.own.V3 = c.out.V3
	o.w = &o.own
	return o
}

// recycle takes back an op and its parts, and the references they hold.
func (c *conn) recycle(o *Op) {
	for _, part := range o.parts {
		c.recycle(part)
	}
	c.reserved.Add(-o.reserved)
	c.server.budget.Take(-o.held)
	if len(c.free) >= keepOps || o.panicked {
		return
	}
	own, keys, ends := o.own.Buf[:0], o.keys[:0], o.ends[:0]
	if cap(own) > keepOpBuffer {
		own = nil
	}
	if cap(keys) > keepOpKeys {
		keys, ends = nil, nil
	}
	*o = Op{c: c, own: resp.Reply{Buf: own}, keys: keys, ends: ends}
	c.free = append(c.free, o)
}
