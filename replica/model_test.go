package replica

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fakeClock is a clock that tests move.
type fakeClock struct{ ms atomic.Int64 }

func newFakeClock() *fakeClock {
	c := new(fakeClock)
	c.ms.Store(time.Now().UnixMilli())
	return c
}

func (c *fakeClock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *fakeClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// model is what a partition must look like.
type model map[string]*modelValue

type modelValue struct {
	kind     Kind
	data     string
	fields   map[string]string
	expireAt uint64
}

// at is a key's value at a time, nil if absent.
func (m model) at(key string, nowMs uint64) *modelValue {
	v := m[key]
	if v == nil || v.expireAt != 0 && v.expireAt <= nowMs {
		return nil
	}
	return v
}

// modelOp is one random operation and how it went.
type modelOp struct {
	name       string
	key, field string
	value      string
	expireIn   time.Duration

	nowMs uint64
	got   string
	panic bool
}

func (o *modelOp) expireAt() uint64 {
	if o.expireIn == 0 {
		return 0
	}
	return o.nowMs + uint64(o.expireIn.Milliseconds())
}

// run does the operation on the partition.
func (o *modelOp) run(tx *Tx) {
	o.nowMs = tx.NowMs()
	k, f := []byte(o.key), []byte(o.field)
	switch o.name {
	case "put":
		o.got = fmt.Sprint(tx.Put(k, []byte(o.value), o.expireAt()))
	case "append":
		v, ok, err := tx.Get(k)
		if err == nil && (!ok || v.Kind == String) {
			err = tx.Put(k, append(slices.Clone(v.Data), o.value...), v.ExpireAt)
		}
		o.got = fmt.Sprint(v.Kind, ok, len(v.Data), err)
	case "delete":
		ok, err := tx.Delete(k)
		o.got = fmt.Sprint(ok, err)
	case "expire":
		ok, err := tx.Expire(k, o.expireAt())
		o.got = fmt.Sprint(ok, err)
	case "hput":
		created, err := tx.HashPut(k, f, []byte(o.value))
		o.got = fmt.Sprint(created, err)
	case "hdel":
		deleted, err := tx.HashDelete(k, f)
		o.got = fmt.Sprint(deleted, err)
	case "get":
		v, ok, err := tx.Get(k)
		o.got = fmt.Sprint(v.Kind, string(v.Data), v.ExpireAt, v.Len, ok, err)
	case "hget":
		v, ok, err := tx.HashGet(k, f)
		o.got = fmt.Sprint(string(v), ok, err)
	case "hall":
		all := map[string]string{}
		err := tx.HashAll(k, func(f, v []byte) bool { all[string(f)] = string(v); return true })
		o.got = fmt.Sprint(all, err)
	}
	if o.panic {
		panic("asked for")
	}
}

// check does the operation on the model and compares.
func (o *modelOp) check(m model) error {
	v := m.at(o.key, o.nowMs)
	var want string
	switch {
	case (o.name == "hput" || o.name == "hdel" || o.name == "hget" || o.name == "hall") && v != nil && v.kind == String:
		switch o.name {
		case "hall":
			want = fmt.Sprint(map[string]string{}, ErrWrongType)
		case "hget":
			want = fmt.Sprint("", false, ErrWrongType)
		default:
			want = fmt.Sprint(false, ErrWrongType)
		}
	case o.name == "put":
		want = fmt.Sprint(error(nil))
		o.store(m, &modelValue{kind: String, data: o.value, expireAt: o.expireAt()})
	case o.name == "append":
		want = o.checkAppend(m, v)
	case o.name == "delete":
		want = fmt.Sprint(v != nil, error(nil))
		o.store(m, nil)
	case o.name == "expire":
		want = fmt.Sprint(v != nil, error(nil))
		if v != nil {
			w := *v
			w.expireAt = o.expireAt()
			o.store(m, &w)
		}
	case o.name == "get":
		want = fmt.Sprint(None, "", 0, 0, false, error(nil))
		if v != nil {
			want = fmt.Sprint(v.kind, v.data, v.expireAt, len(v.fields)+len(v.data), true, error(nil))
		}
	default:
		want = o.checkHash(m, v)
	}
	if want != o.got {
		return fmt.Errorf("%+v: want %.200s", o, want)
	}
	return nil
}

func (o *modelOp) checkAppend(m model, v *modelValue) string {
	if v == nil {
		o.store(m, &modelValue{kind: String, data: o.value})
		return fmt.Sprint(None, false, 0, error(nil))
	}
	if v.kind == String {
		w := *v
		w.data += o.value
		o.store(m, &w)
	}
	return fmt.Sprint(v.kind, true, len(v.data), error(nil))
}

func (o *modelOp) checkHash(m model, v *modelValue) string {
	fields, expireAt := map[string]string{}, uint64(0)
	if v != nil {
		fields, expireAt = maps.Clone(v.fields), v.expireAt
	}
	old, had := fields[o.field]
	switch o.name {
	case "hget":
		return fmt.Sprint(old, had, error(nil))
	case "hall":
		return fmt.Sprint(fields, error(nil))
	case "hdel":
		delete(fields, o.field)
		if len(fields) == 0 {
			o.store(m, nil)
			return fmt.Sprint(had, error(nil))
		}
		o.store(m, &modelValue{kind: Hash, fields: fields, expireAt: expireAt})
		return fmt.Sprint(had, error(nil))
	}
	fields[o.field] = o.value
	o.store(m, &modelValue{kind: Hash, fields: fields, expireAt: expireAt})
	return fmt.Sprint(!had, error(nil))
}

func (o *modelOp) store(m model, v *modelValue) {
	if o.panic {
		return
	}
	if v == nil {
		delete(m, o.key)
		return
	}
	m[o.key] = v
}

func drawOp(t *rapid.T) *modelOp {
	o := &modelOp{
		name:  rapid.SampledFrom([]string{"put", "put", "append", "delete", "expire", "hput", "hput", "hput", "hdel", "get", "hget", "hall"}).Draw(t, "op"),
		key:   rapid.SampledFrom([]string{"a", "b", "c", "{x}d"}).Draw(t, "key"),
		field: rapid.SampledFrom([]string{"f", "g", "h"}).Draw(t, "field"),
		value: rapid.SampledFrom([]string{"", "1", "22", "333"}).Draw(t, "value"),
		panic: rapid.IntRange(0, 19).Draw(t, "panic") == 0,
	}
	if rapid.IntRange(0, 200).Draw(t, "long") == 0 {
		o.value = string(make([]byte, chunkBytes+10))
		if o.name == "hput" {
			o.value = o.value[:maxFieldValueBytes]
		}
	}
	if rapid.Bool().Draw(t, "expires") {
		o.expireIn = time.Duration(rapid.IntRange(-5, 50).Draw(t, "expireIn")) * time.Millisecond
	}
	return o
}

// checkState compares all that a view shows with the model.
func checkState(p *Partition, m model) error {
	return p.View(contextBackground, func(v *View) error {
		live := map[string]Kind{}
		for k := range m {
			if w := m.at(k, v.NowMs()); w != nil {
				live[k] = w.kind
				if err := checkValue(v, k, w); err != nil {
					return err
				}
			}
		}
		seen := map[string]Kind{}
		cursor := uint64(0)
		for first := true; first || cursor != 0; first = false {
			var err error
			cursor, err = v.Scan(cursor, 1, func(key []byte, kind Kind) { seen[string(key)] = kind })
			if err != nil {
				return err
			}
		}
		if !maps.Equal(live, seen) {
			return fmt.Errorf("keys %v, want %v", seen, live)
		}
		return nil
	})
}

func checkValue(v *View, key string, w *modelValue) error {
	got, ok, err := v.Get([]byte(key))
	if err != nil || !ok || got.Kind != w.kind || string(got.Data) != w.data || got.ExpireAt != w.expireAt {
		return fmt.Errorf("key %q: %v %v %d bytes, want %d; expires %d, want %d; %w",
			key, ok, got.Kind, len(got.Data), len(w.data), got.ExpireAt, w.expireAt, err)
	}
	if w.kind == String {
		return nil
	}
	all := map[string]string{}
	if err := v.HashAll([]byte(key), func(f, val []byte) bool { all[string(f)] = string(val); return true }); err != nil {
		return err
	}
	scanned, cursor := map[string]string{}, uint64(0)
	for first := true; first || cursor != 0; first = false {
		cursor, err = v.HashScan([]byte(key), cursor, 1, func(f, val []byte) { scanned[string(f)] = string(val) })
		if err != nil {
			return err
		}
	}
	if !maps.Equal(all, w.fields) || !maps.Equal(scanned, w.fields) || got.Len != uint64(len(w.fields)) {
		return fmt.Errorf("hash %q: %v, scanned %v, length %d, want %v", key, all, scanned, got.Len, w.fields)
	}
	for f, val := range w.fields {
		if data, ok, err := v.HashGet([]byte(key), []byte(f)); err != nil || !ok || string(data) != val {
			return fmt.Errorf("hash %q field %q: %q %v %w", key, f, data, ok, err)
		}
	}
	return nil
}

// TestModel runs random commands, many in flight, with expiry, panics, restarts and sweeps, against a map.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := newFakeClock()
		o := testOptions(t, testDir(rt))
		o.Clock = clock.now
		o.BatchCommands = rapid.SampledFrom([]int{1, 3, 1024}).Draw(rt, "batch")
		o.InFlight = rapid.SampledFrom([]int{1, 4}).Draw(rt, "inflight")
		n := startNode(t, o)
		defer func() { n.stop(t) }()
		m := model{}
		for range rapid.IntRange(1, 6).Draw(rt, "rounds") {
			p := n.Partition(0)
			runBurst(rt, p, clock, m)
			if err := checkState(p, m); err != nil {
				rt.Fatal(err)
			}
			switch rapid.IntRange(0, 3).Draw(rt, "then") {
			case 0:
				n.stop(t)
				n = startNode(t, o)
			case 1:
				if err := p.Sweep(contextBackground, nil); err != nil {
					rt.Fatal(err)
				}
			case 2:
				clock.advance(time.Duration(rapid.IntRange(1, 100).Draw(rt, "advance")) * time.Millisecond)
			}
			if err := checkState(n.Partition(0), m); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// runBurst proposes random commands without waiting in between, and then checks them in order.
func runBurst(rt *rapid.T, p *Partition, clock *fakeClock, m model) {
	var ops []*modelOp
	var calls []*call
	for range rapid.IntRange(1, 60).Draw(rt, "burst") {
		o := drawOp(rt)
		c := newCall(o.run)
		if err := p.Propose(c); err != nil {
			rt.Fatal(err)
		}
		ops, calls = append(ops, o), append(calls, c)
		if rapid.IntRange(0, 9).Draw(rt, "tick") == 0 {
			clock.advance(time.Millisecond)
		}
	}
	for i, o := range ops {
		err := <-calls[i].done
		if (err != nil) != o.panic {
			rt.Fatalf("%+v: %v", o, err)
		}
		if err := o.check(m); err != nil {
			rt.Fatal(err)
		}
	}
}
