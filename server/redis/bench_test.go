package redis

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"replicanode/server/resp"
)

// scriptedConn gives the same pipeline again and again, and drops what is written.
type scriptedConn struct {
	net.Conn
	burst []byte
	at    int // how much of the burst has been given
	left  int
}

func (s *scriptedConn) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.burst[s.at:])
	if s.at += n; s.at == len(s.burst) {
		s.at = 0
		s.left--
	}
	return n, nil
}

func (s *scriptedConn) Write(p []byte) (int, error)      { return len(p), nil }
func (s *scriptedConn) Close() error                     { return nil }
func (s *scriptedConn) RemoteAddr() net.Addr             { return nil }
func (s *scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (s *scriptedConn) SetWriteDeadline(time.Time) error { return nil }

// nullStore does nothing, at once.
type nullStore struct {
	*fakeStore
	p nullPartition
}

func (s *nullStore) Partition(int) Partition { return &s.p }

type nullPartition struct{ tx nullTx }

func (p *nullPartition) Propose(op *Op) error {
	op.Execute(&p.tx)
	op.Finish(nil)
	return nil
}
func (p *nullPartition) View(_ context.Context, q Query) error { return q.Read(&p.tx) }
func (p *nullPartition) Count(context.Context) (uint64, error) { return 0, nil }

type nullTx struct{ fakeTx }

func (t *nullTx) NowMs() uint64                        { return 1 }
func (t *nullTx) Put(_, _ []byte, _ uint64) error      { return nil }
func (t *nullTx) HashPut(_, _, _ []byte) (bool, error) { return true, nil }

func newNullTx() nullTx {
	return nullTx{fakeTx{p: &fakePartition{now: time.Now}, state: map[string]fakeEntry{"key:000000000001": {data: bytes.Repeat([]byte("x"), 100)}}}}
}

// BenchmarkDispatch is the cost of one command in the codec and the connection, without the network and the store.
func BenchmarkDispatch(b *testing.B) {
	key, value := []byte("key:000000000001"), bytes.Repeat([]byte("x"), 100)
	for name, args := range map[string][][]byte{
		"SET": {[]byte("SET"), key, value}, "GET": {[]byte("GET"), key}, "PING": {[]byte("PING")}, "HSET": {[]byte("HSET"), key, []byte("f"), value},
		"MSET10": append([][]byte{[]byte("MSET")}, bytes.Fields(bytes.Repeat([]byte("key:000000000001 v "), 10))...),
	} {
		for _, pipeline := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/pipeline=%d", name, pipeline), func(b *testing.B) {
				fake := newFakeStore(8)
				defer fake.close()
				s, err := New(Options{Addr: "127.0.0.1:0", Store: &nullStore{fake, nullPartition{newNullTx()}}})
				if err != nil {
					b.Fatal(err)
				}
				burst := bytes.Repeat(resp.AppendCommand(nil, args...), pipeline)
				b.ReportAllocs()
				b.ResetTimer()
				newConn(s, &scriptedConn{burst: burst, left: b.N/pipeline + 1}).serve()
			})
		}
	}
}
