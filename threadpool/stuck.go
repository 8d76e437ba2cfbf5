package threadpool

import (
	"bytes"
	"runtime"
	"strconv"
	"time"
)

// maxDump bounds the memory for the stacks of all goroutines. They are taken once each dumpEvery in the long run, up to dumpBurst
// times in a row: it stops the world.
const (
	maxDump   = 4 << 20
	dumpEvery = int64(time.Second)
	dumpBurst = 16
)

// stuckEntry is a report that still lacks its stack.
type stuckEntry struct {
	h      Handle
	report StuckTask
	goid   int64
}

func (p *Pool) stuckEntry(e *entry, now int64) stuckEntry {
	s := stuckEntry{h: Handle{pool: p, e: e, id: e.seq}, goid: e.goid.Load(), report: StuckTask{ID: e.seq, Code: e.code.name, Ran: time.Duration(e.ran + e.own + now - e.since)}}
	if e.key != nil {
		s.report.Key = e.key.name
	}
	return s
}

// cancelStuck cancels tasks that ran past their timeout and reports them. The stacks are taken first, so that they show
// what the tasks were stuck in. The caller has counted itself in calls.
func (p *Pool) cancelStuck(stuck []stuckEntry) {
	dump := p.dump()
	p.mu.Lock()
	now := p.now()
	for _, s := range stuck {
		e := s.h.e
		if !s.h.valid() || e.frame == nil || e.cause != nil || !e.timedOut {
			continue
		}
		p.tellEntry(e, ErrTimeout, now)
	}
	p.unlock(now)
	for _, s := range stuck {
		s.report.Stack = stackOf(dump, s.goid)
		p.log.Warn("task ran past its timeout", "code", s.report.Code, "id", s.report.ID, "key", s.report.Key, "ran", s.report.Ran, "stack", s.report.Stack)
		if p.o.OnStuck != nil {
			p.o.OnStuck(s.report)
		}
	}
	p.mu.Lock()
	p.calls--
	p.unlock(p.now())
}

// dump takes the stacks of all goroutines, or nothing if it did so too often.
func (p *Pool) dump() []byte {
	p.mu.Lock()
	now := p.now()
	ahead := max(0, p.dumped-now)
	often := ahead > (dumpBurst-1)*dumpEvery
	if !often {
		p.dumped = now + ahead + dumpEvery
	}
	p.mu.Unlock()
	if often {
		return nil
	}
	dump := make([]byte, maxDump)
	return dump[:runtime.Stack(dump, true)]
}

// stackOf cuts one goroutine's part out of a dump of all.
func stackOf(dump []byte, goid int64) string {
	if goid == 0 {
		return ""
	}
	head := []byte("goroutine " + strconv.FormatInt(goid, 10) + " [")
	i := bytes.Index(dump, head)
	if i < 0 {
		return ""
	}
	part := dump[i:]
	if end := bytes.Index(part, []byte("\n\n")); end >= 0 {
		part = part[:end]
	}
	return string(part)
}

// goroutineID reads the present goroutine's number from the head of its stack, the only place that shows it.
func goroutineID() int64 {
	var buf [64]byte
	s := buf[:runtime.Stack(buf[:], false)]
	s = bytes.TrimPrefix(s, []byte("goroutine "))
	if i := bytes.IndexByte(s, ' '); i > 0 {
		id, _ := strconv.ParseInt(string(s[:i]), 10, 64)
		return id
	}
	return 0
}
