package mutation

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sample() []byte {
	var b Builder
	b.Reset(Header{Kind: User, Timestamp: 77, Cluster: 9})
	b.Now(1_700_000_000_000)
	b.Put([]byte("k"), []byte("v"), 0)
	b.Put([]byte("k"), nil, 12345)
	b.Delete([]byte("gone"))
	b.Expire([]byte("h"), 0, 7, 8)
	b.HashPut([]byte("h"), []byte("f"), bytes.Repeat([]byte("x"), 300))
	b.HashDelete([]byte("h"), []byte("f"))
	return bytes.Clone(b.Bytes())
}

func sampleBatch() Batch {
	return Batch{Cluster: 3, Partition: 5, Prev: 10, Last: 300, Mutations: []SourceMutation{
		{Decree: 11, Data: sample()}, {Decree: 250, Data: AppendHeader(nil, Header{Kind: User, Timestamp: 1, Cluster: 3})},
	}}
}

func TestUserRoundTrip(t *testing.T) {
	h, d, err := Decode(sample())
	if err != nil || h != (Header{User, 77, 9}) {
		t.Fatalf("header %+v, %v", h, err)
	}
	var codes []OpCode
	for op := (Op{}); d.Next(&op); {
		codes = append(codes, op.Code)
		if op.Code == OpPut && len(op.Value) == 0 && op.ExpireAt != 12345 {
			t.Fatalf("put %+v", op)
		}
	}
	if d.Err() != nil || len(codes) != 7 || codes[0] != OpNow {
		t.Fatalf("%v, %v", codes, d.Err())
	}
}

func TestRollbackForgets(t *testing.T) {
	var b Builder
	b.Reset(Header{Kind: User})
	b.Put([]byte("a"), []byte("1"), 0)
	before, mark := bytes.Clone(b.Bytes()), b.Mark()
	b.HashPut([]byte("b"), []byte("c"), []byte("d"))
	b.Rollback(mark)
	if !bytes.Equal(before, b.Bytes()) || b.Ops() != 1 {
		t.Fatalf("%x, %d ops", b.Bytes(), b.Ops())
	}
}

func TestEveryTruncationIsRefusedOrShorter(t *testing.T) {
	b := sampleBatch()
	for name, data := range map[string][]byte{
		"user":       sample(),
		"duplicated": AppendDuplicated(nil, 8, 9, &b),
		"progress":   AppendProgress(nil, 8, 9, ProgressRecord{"backup", 1 << 40}),
	} {
		if err := Validate(data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for n := range data {
			err := Validate(data[:n:n])
			if err != nil && !errors.Is(err, ErrFormat) {
				t.Fatalf("%s cut at %d: %v", name, n, err)
			}
			if err == nil && n < HeaderBytes {
				t.Fatalf("%s cut at %d is valid", name, n)
			}
		}
	}
}

func TestUnknownThingsAreRefused(t *testing.T) {
	head := AppendHeader(nil, Header{Kind: User, Timestamp: 1, Cluster: 1})
	for name, data := range map[string][]byte{
		"version":          append([]byte{2}, head[1:]...),
		"kind":             append([]byte{1, 9}, head[2:]...),
		"op":               append(bytes.Clone(head), 99),
		"put flags":        append(bytes.Clone(head), byte(OpPut), 2, 0, 0),
		"put expiry of 0":  append(bytes.Clone(head), byte(OpPut), 1, 0, 0, 0),
		"now too late":     append(bytes.Clone(head), byte(OpDelete), 1, 'x', byte(OpNow), 1),
		"overlong varint":  append(bytes.Clone(head), byte(OpDelete), 0x81, 0x00, 'x'),
		"length too long":  append(bytes.Clone(head), byte(OpDelete), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"batch of nothing": AppendHeader(nil, Header{Kind: Duplicated, Timestamp: 1, Cluster: 1}),
	} {
		if err := Validate(data); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBatchMustHoldUserMutationsInOrder(t *testing.T) {
	good := sampleBatch()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if got, want := len(good.Append(nil)), good.EncodedBytes(); got != want {
		t.Fatalf("encoded %d bytes, announced %d", got, want)
	}
	bad := []Batch{
		{Prev: 5, Last: 4},
		{Prev: 5, Last: 9, Mutations: []SourceMutation{{5, sample()}}},
		{Prev: 5, Last: 9, Mutations: []SourceMutation{{10, sample()}}},
		{Prev: 5, Last: 9, Mutations: []SourceMutation{{7, sample()}, {7, sample()}}},
		{Prev: 5, Last: 9, Mutations: []SourceMutation{{7, AppendProgress(nil, 1, 1, ProgressRecord{})}}},
	}
	for i := range bad {
		if err := bad[i].Validate(); !errors.Is(err, ErrFormat) {
			t.Errorf("batch %d: %v", i, err)
		}
	}
}

func TestBuilderDoesNotAllocate(t *testing.T) {
	var b Builder
	key, value := []byte("some key"), make([]byte, 100)
	b.Reset(Header{Kind: User})
	allocs := testing.AllocsPerRun(100, func() {
		b.Reset(Header{Kind: User})
		for range 10 {
			b.Put(key, value, 5)
			b.HashPut(key, key, value)
		}
		_, d, _ := Decode(b.Bytes())
		for op := (Op{}); d.Next(&op); {
		}
	})
	if allocs > 0 {
		t.Fatalf("%v allocations", allocs)
	}
}

func TestClockNeverRepeatsOrGoesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMicro(1 << 40)
		c := Clock{Physical: func() time.Time { return now }}
		last := Timestamp(0)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "jump")))
			if rapid.Bool().Draw(t, "observe") {
				seen := TimestampOf(now) + Timestamp(rapid.Uint64Range(0, 1<<30).Draw(t, "ahead"))
				c.Observe(seen)
				last = max(last, seen)
			}
			ts := c.Next()
			if ts <= last {
				t.Fatalf("%d after %d", ts, last)
			}
			last = ts
		}
	})
}

func FuzzDecode(f *testing.F) {
	b := sampleBatch()
	f.Add(sample())
	f.Add(AppendDuplicated(nil, 8, 9, &b))
	f.Add(AppendProgress(nil, 8, 9, ProgressRecord{"backup", 7}))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseHeader(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if err := Validate(data); err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if again := reencode(t, h, data); !bytes.Equal(again, data) {
			t.Fatalf("decoded and encoded again: %x, was %x", again, data)
		}
	})
}

func reencode(t *testing.T, h Header, data []byte) []byte {
	switch h.Kind {
	case Duplicated:
		_, b, err := DecodeDuplicated(data)
		if err != nil {
			t.Fatal(err)
		}
		return AppendDuplicated(nil, h.Timestamp, h.Cluster, &b)
	case Progress:
		_, p, err := DecodeProgress(data)
		if err != nil {
			t.Fatal(err)
		}
		return AppendProgress(nil, h.Timestamp, h.Cluster, p)
	}
	var b Builder
	b.Reset(h)
	_, d, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	for op := (Op{}); d.Next(&op); {
		switch op.Code {
		case OpPut:
			b.Put(op.Key, op.Value, op.ExpireAt)
		case OpDelete:
			b.Delete(op.Key)
		case OpExpire:
			b.Expire(op.Key, op.ExpireAt, op.BaseAt, op.BaseCluster)
		case OpHashPut:
			b.HashPut(op.Key, op.Field, op.Value)
		case OpHashDelete:
			b.HashDelete(op.Key, op.Field)
		case OpNow:
			b.Now(op.Now)
		}
	}
	return b.Bytes()
}
