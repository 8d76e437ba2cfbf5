package redis

import (
	"context"
	"maps"
	"runtime/debug"
	"slices"
	"sort"
	"sync"
	"time"

	"replicanode/replica"
)

// fakeStore keeps its partitions in memory. As in a real one, what is proposed is executed at once, in order, against the newest
// state, but finishes and becomes visible to View later.
type fakeStore struct{ partitions []*fakePartition }

func newFakeStore(n int) *fakeStore {
	s := &fakeStore{}
	for range n {
		p := &fakePartition{newest: map[string]fakeEntry{}, applied: map[string]fakeEntry{}, touched: map[string]struct{}{}, now: time.Now}
		p.cond = sync.NewCond(&p.mu)
		p.wg.Go(p.run)
		s.partitions = append(s.partitions, p)
	}
	return s
}

func (s *fakeStore) Partitions() int           { return len(s.partitions) }
func (s *fakeStore) Partition(i int) Partition { return s.partitions[i] }
func (s *fakeStore) Route(key []byte) int {
	return int(replica.PartitionOf(key, uint32(len(s.partitions))))
}

func (s *fakeStore) close() {
	for _, p := range s.partitions {
		p.mu.Lock()
		p.closed, p.held = true, false
		p.cond.Broadcast()
		p.mu.Unlock()
		p.wg.Wait()
	}
}

// hold keeps everything proposed to all partitions from finishing until release is called.
func (s *fakeStore) hold() (release func()) {
	set := func(held bool) {
		for _, p := range s.partitions {
			p.mu.Lock()
			p.held = held
			p.cond.Broadcast()
			p.mu.Unlock()
		}
	}
	set(true)
	return func() { set(false) }
}

// endWith makes everything that is executed from now on end with err.
func (s *fakeStore) endWith(err error) {
	for _, p := range s.partitions {
		p.mu.Lock()
		p.end = err
		p.mu.Unlock()
	}
}

// fakeEntry is never changed once it is in a map.
type fakeEntry struct {
	data   []byte
	fields map[string][]byte
	at     uint64
}

type fakePartition struct {
	mu              sync.Mutex
	cond            *sync.Cond
	newest, applied map[string]fakeEntry
	touched         map[string]struct{} // keys in which they may differ
	queue           []*Op
	held, closed    bool
	end             error // what everything executed ends with
	now             func() time.Time
	refuse          func() error // what Propose answers, when set
	proposed        int
	wg              sync.WaitGroup
}

func (p *fakePartition) Propose(op *Op) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		if err := p.refuse(); err != nil {
			return err
		}
	}
	p.proposed++
	p.queue = append(p.queue, op)
	p.cond.Broadcast()
	return nil
}

func (p *fakePartition) run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for (len(p.queue) == 0 || p.held) && !(p.closed && len(p.queue) == 0) {
			p.cond.Wait()
		}
		if len(p.queue) == 0 {
			return
		}
		batch := p.queue
		p.queue = nil
		errs := make([]error, len(batch))
		for i, op := range batch {
			if errs[i] = p.execute(op); errs[i] == nil {
				errs[i] = p.end
			}
		}
		for key := range p.touched {
			if e, ok := p.newest[key]; ok {
				p.applied[key] = e
			} else {
				delete(p.applied, key)
			}
		}
		clear(p.touched)
		p.mu.Unlock()
		for i, op := range batch {
			op.Finish(errs[i])
		}
		p.mu.Lock()
	}
}

func (p *fakePartition) execute(op *Op) (err error) {
	undo := map[string]*fakeEntry{}
	defer func() {
		if r := recover(); r != nil {
			for key, e := range undo {
				if delete(p.newest, key); e != nil {
					p.newest[key] = *e
				}
			}
			err = &replica.PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	op.Execute(&fakeTx{p: p, state: p.newest, undo: undo})
	return nil
}

func (p *fakePartition) View(_ context.Context, q Query) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return q.Read(&fakeTx{p: p, state: p.applied})
}

func (p *fakePartition) Count(context.Context) (n uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tx := &fakeTx{p: p, state: p.applied}
	for key := range p.applied {
		if _, ok := tx.entry([]byte(key)); ok {
			n++
		}
	}
	return n, nil
}

// fakeTx implements Tx and View.
type fakeTx struct {
	p     *fakePartition
	state map[string]fakeEntry
	undo  map[string]*fakeEntry // what changed keys held before; nil: nothing
}

// change replaces what a key holds; nil: nothing.
func (t *fakeTx) change(key []byte, e *fakeEntry) {
	if _, ok := t.undo[string(key)]; !ok {
		t.undo[string(key)] = nil
		if old, ok := t.state[string(key)]; ok {
			t.undo[string(key)] = &old
		}
	}
	t.p.touched[string(key)] = struct{}{}
	if delete(t.state, string(key)); e != nil {
		t.state[string(key)] = *e
	}
}

func (t *fakeTx) NowMs() uint64 { return uint64(t.p.now().UnixMilli()) }

func (t *fakeTx) entry(key []byte) (fakeEntry, bool) {
	e, ok := t.state[string(key)]
	if ok && e.at != 0 && e.at <= t.NowMs() {
		return fakeEntry{}, false
	}
	return e, ok
}

func (t *fakeTx) Get(key []byte) (v replica.Value, ok bool, err error) {
	e, ok := t.entry(key)
	switch {
	case !ok:
		return v, false, nil
	case e.fields != nil:
		return replica.Value{Kind: replica.Hash, Len: uint64(len(e.fields)), ExpireAt: e.at}, true, nil
	}
	return replica.Value{Kind: replica.String, Data: e.data, Len: uint64(len(e.data)), ExpireAt: e.at}, true, nil
}

func (t *fakeTx) Stat(key []byte) (replica.Value, bool, error) {
	v, ok, err := t.Get(key)
	v.Data = nil
	return v, ok, err
}

func (t *fakeTx) hash(key []byte) (fakeEntry, bool, error) {
	e, ok := t.entry(key)
	if ok && e.fields == nil {
		return e, ok, replica.ErrWrongType
	}
	return e, ok, nil
}

func (t *fakeTx) HashGet(key, field []byte) ([]byte, bool, error) {
	e, _, err := t.hash(key)
	data, ok := e.fields[string(field)]
	return data, ok, err
}

func (t *fakeTx) Put(key, data []byte, at uint64) error {
	t.change(key, &fakeEntry{data: append([]byte{}, data...), at: at})
	return nil
}

func (t *fakeTx) Delete(key []byte) (bool, error) {
	_, ok := t.entry(key)
	t.change(key, nil)
	return ok, nil
}

func (t *fakeTx) Expire(key []byte, at uint64) (bool, error) {
	e, ok := t.entry(key)
	if ok {
		e.at = at
		t.change(key, &e)
	}
	return ok, nil
}

func (t *fakeTx) HashPut(key, field, data []byte) (bool, error) {
	e, _, err := t.hash(key)
	if err != nil {
		return false, err
	}
	_, exists := e.fields[string(field)]
	fields := maps.Clone(e.fields)
	if fields == nil {
		fields = map[string][]byte{}
	}
	fields[string(field)] = append([]byte{}, data...)
	t.change(key, &fakeEntry{fields: fields, at: e.at})
	return !exists, nil
}

func (t *fakeTx) HashDelete(key, field []byte) (bool, error) {
	e, _, err := t.hash(key)
	if err != nil {
		return false, err
	}
	if _, ok := e.fields[string(field)]; !ok {
		return false, nil
	}
	fields := maps.Clone(e.fields)
	delete(fields, string(field))
	if len(fields) == 0 {
		t.change(key, nil)
	} else {
		t.change(key, &fakeEntry{fields: fields, at: e.at})
	}
	return true, nil
}

func (t *fakeTx) HashAll(key []byte, f func(field, data []byte) bool) error {
	e, _, err := t.hash(key)
	for _, field := range slices.Sorted(maps.Keys(e.fields)) {
		if !f([]byte(field), e.fields[field]) {
			break
		}
	}
	return err
}

func (t *fakeTx) HashScan(key []byte, cursor uint64, count int, f func(field, data []byte)) (uint64, error) {
	e, _, err := t.hash(key)
	return scanSorted(slices.Collect(maps.Keys(e.fields)), cursor, count, func(field string) { f([]byte(field), e.fields[field]) }), err
}

func (t *fakeTx) Scan(cursor uint64, count int, f func(key []byte, kind replica.Kind)) (uint64, error) {
	return scanSorted(slices.Collect(maps.Keys(t.state)), cursor, count, func(key string) {
		if v, ok, _ := t.Get([]byte(key)); ok {
			f([]byte(key), v.Kind)
		}
	}), nil
}

// scanSorted goes through names in the order of a hash of them; a cursor is the next hash.
func scanSorted(names []string, cursor uint64, count int, f func(string)) uint64 {
	hash := func(s string) uint64 {
		h := uint64(14695981039346656037)
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		return h>>17 | 1
	}
	sort.Slice(names, func(i, j int) bool { return hash(names[i]) < hash(names[j]) })
	for i, name := range names {
		h := hash(name)
		if h < cursor {
			continue
		}
		if count <= 0 && (i == 0 || hash(names[i-1]) != h) {
			return h
		}
		f(name)
		count--
	}
	return 0
}
