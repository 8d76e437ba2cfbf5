package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeServer is a RESP server that keeps values in a map and does what a test tells it to.
type fakeServer struct {
	t        *testing.T
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	conns    []net.Conn
	values   map[string]string
	requests int
	// before is called for every request, unlocked, before it is answered; its error is the answer, and io.EOF ends the
	// connection.
	before func(n int, args []string) error
}

func newFakeServer(t *testing.T, before func(n int, args []string) error) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeServer{t: t, listener: l, values: map[string]string{}, before: before}
	s.wg.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

func (s *fakeServer) addr() string { return s.listener.Addr().String() }

func (s *fakeServer) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *fakeServer) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		s.wg.Go(func() { s.serve(c) })
	}
}

func (s *fakeServer) serve(c net.Conn) {
	defer c.Close()
	in, out := bufio.NewReader(c), bufio.NewWriter(c)
	for {
		args, err := readCommand(in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				s.t.Errorf("request: %v", err)
			}
			return
		}
		if s.answer(out, args) != nil {
			_ = out.Flush()
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

func (s *fakeServer) answer(out *bufio.Writer, args []string) error {
	s.mu.Lock()
	s.requests++
	n := s.requests
	s.mu.Unlock()
	if s.before != nil {
		if err := s.before(n, args); errors.Is(err, io.EOF) {
			return err
		} else if err != nil {
			fmt.Fprintf(out, "-%v\r\n", err)
			return nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch args[0] {
	case "SET":
		s.values[args[1]] = args[2]
		fmt.Fprint(out, "+OK\r\n")
	case "GET":
		if v, ok := s.values[args[1]]; ok {
			fmt.Fprintf(out, "$%d\r\n%s\r\n", len(v), v)
		} else {
			fmt.Fprint(out, "$-1\r\n")
		}
	case "AUTH":
		if args[1] != "secret" {
			fmt.Fprint(out, "-WRONGPASS no\r\n")
		} else {
			fmt.Fprint(out, "+OK\r\n")
		}
	default:
		fmt.Fprintf(out, "-ERR unknown command %s\r\n", args[0])
	}
	return nil
}

func readCommand(in *bufio.Reader) ([]string, error) {
	number := func(kind byte) (int, error) {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line[0] != kind || !strings.HasSuffix(line, "\r\n") {
			return 0, fmt.Errorf("line %q, want a %q", line, kind)
		}
		return strconv.Atoi(line[1 : len(line)-2])
	}
	n, err := number('*')
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := number('$')
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, err
		}
		if string(b[size:]) != "\r\n" {
			return nil, fmt.Errorf("bulk of %d ends with %q", size, b[size:])
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

// context that ends the test's waiting long before the test binary would.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func waitDone(t *testing.T, ctx context.Context, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("the driver did not end")
	}
}
