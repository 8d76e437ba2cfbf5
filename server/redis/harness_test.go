package redis

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"replicanode/server/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type harness struct {
	t     testing.TB
	s     *Server
	store *fakeStore
	logs  *logBuffer
}

// serve starts a server on a fake store of 4 partitions, unless the options have another, and stops it with the test.
func serve(t testing.TB, o Options) *harness {
	t.Helper()
	h := &harness{t: t, logs: &logBuffer{}}
	if o.Store == nil {
		h.store = newFakeStore(4)
		o.Store = h.store
	}
	o.Addr = "127.0.0.1:0"
	o.Logger = slog.New(slog.NewTextHandler(h.logs, nil))
	var err error
	if h.s, err = New(o); err != nil {
		t.Fatal(err)
	}
	if err := h.s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := h.s.Stop(ctx); err != nil {
			t.Error(err)
		}
		if h.store != nil {
			h.store.close()
		}
	})
	return h
}

// counted is a counter's value.
func counted(c prometheus.Counter) float64 {
	var m dto.Metric
	_ = c.Write(&m)
	return m.GetCounter().GetValue()
}

// rawClient is a connection whose bytes the test chooses.
type rawClient struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func (h *harness) dial() *rawClient { return dialRaw(h.t, h.s.Addr().String()) }

func dialRaw(t testing.TB, addr string) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &rawClient{t: t, nc: nc, r: bufio.NewReader(nc)}
}

func (c *rawClient) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, s); err != nil {
		c.t.Fatal(err)
	}
}

// send sends a command as an array.
func (c *rawClient) send(words ...string) {
	c.t.Helper()
	var args [][]byte
	for _, w := range words {
		args = append(args, []byte(w))
	}
	c.write(string(resp.AppendCommand(nil, args...)))
}

// read reads one reply and shows it on one line: statuses as they are, errors with '-', numbers as :1, strings quoted, nulls as nil,
// arrays in brackets, maps in braces, sets in angle brackets.
func (c *rawClient) read() string {
	c.t.Helper()
	s, err := readReply(c.r)
	if err != nil {
		c.t.Fatalf("read reply: %v", err)
	}
	return s
}

func (c *rawClient) do(words ...string) string {
	c.t.Helper()
	c.send(words...)
	return c.read()
}

// line executes a command whose words are separated by spaces; a word of "" is empty.
func (c *rawClient) line(s string) string {
	c.t.Helper()
	words := strings.Fields(s)
	for i := range words {
		if words[i] == `""` {
			words[i] = ""
		}
	}
	return c.do(words...)
}

// roundTrips lets the server do n commands for this client.
func (c *rawClient) roundTrips(n int) {
	c.t.Helper()
	for range n {
		c.do("PING")
	}
}

// expectEnd checks that the server closed the connection.
func (c *rawClient) expectEnd() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Fatalf("the connection is open and gave %q", b)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		c.t.Fatal("the connection is still open")
	}
}

func sorted(list []string) []string {
	sort.Strings(list)
	return list
}

func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	if len(line) < 3 || !strings.HasSuffix(line, "\r\n") {
		return "", fmt.Errorf("bad line %q", line)
	}
	kind, text := line[0], line[1:len(line)-2]
	switch kind {
	case '+':
		return text, nil
	case '-', ':', '#', ',':
		return string(kind) + text, nil
	case '_':
		return "nil", nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return "", fmt.Errorf("bad line %q", line)
	}
	switch kind {
	case '$', '=':
		if n < 0 {
			return "nil", nil
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if string(b[n:]) != "\r\n" {
			return "", fmt.Errorf("string ends with %q", b[n:])
		}
		return strconv.Quote(string(b[:n])), nil
	case '*', '%', '~':
		if kind == '%' {
			n *= 2
		}
		var parts []string
		for range n {
			part, err := readReply(r)
			if err != nil {
				return "", err
			}
			parts = append(parts, part)
		}
		brackets := map[byte]string{'*': "[]", '%': "{}", '~': "<>"}[kind]
		return brackets[:1] + strings.Join(parts, " ") + brackets[1:], nil
	}
	return "", fmt.Errorf("bad line %q", line)
}
