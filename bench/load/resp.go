package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// MaxReplyBytes bounds one reply, header included.
const MaxReplyBytes = MaxValueSize + 64

const (
	readBufferBytes = 64 << 10
	dialTimeout     = 5 * time.Second
)

// reply is one answer of the server. Its text is valid until the next fill.
type reply struct {
	kind byte // '+', '-', ':', '$'
	null bool
	text []byte
}

// errProtocol marks bytes that are no reply to a SET, GET or AUTH.
var errProtocol = errors.New("protocol error")

// replies splits a stream into replies: fill reads once from the connection, next takes whole replies from what has arrived.
type replies struct {
	r        io.Reader
	buf      []byte
	from, to int // unread part of buf
}

func newReplies(r io.Reader) *replies {
	return &replies{r: r, buf: make([]byte, readBufferBytes)}
}

// fill waits until at least one more byte has arrived.
func (p *replies) fill() error {
	if p.from == p.to {
		p.from, p.to = 0, 0
	}
	if p.to == len(p.buf) {
		if p.from > 0 {
			p.to = copy(p.buf, p.buf[p.from:p.to])
			p.from = 0
		} else {
			if len(p.buf) >= MaxReplyBytes {
				return fmt.Errorf("%w: a reply of more than %d bytes", errProtocol, MaxReplyBytes)
			}
			p.buf = append(p.buf, make([]byte, min(len(p.buf), MaxReplyBytes-len(p.buf)))...)
		}
	}
	n, err := p.r.Read(p.buf[p.to:])
	p.to += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// next takes one reply; ok is false when the rest of it has not arrived yet.
func (p *replies) next() (r reply, ok bool, err error) {
	data := p.buf[p.from:p.to]
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		return reply{}, false, nil
	}
	if end < 2 || data[end-1] != '\r' {
		return reply{}, false, fmt.Errorf("%w: line %.24q", errProtocol, data[:end])
	}
	r = reply{kind: data[0], text: data[1 : end-1]}
	used := end + 1
	switch r.kind {
	case '+', '-', ':':
	case '$':
		n, err := strconv.Atoi(string(r.text))
		if err != nil || n < -1 || n > MaxValueSize {
			return reply{}, false, fmt.Errorf("%w: bulk length %.24q", errProtocol, r.text)
		}
		if n < 0 {
			r.null, r.text = true, nil
			break
		}
		if len(data) < used+n+2 {
			return reply{}, false, nil
		}
		if data[used+n] != '\r' || data[used+n+1] != '\n' {
			return reply{}, false, fmt.Errorf("%w: a bulk of %d bytes does not end there", errProtocol, n)
		}
		r.text = data[used : used+n]
		used += n + 2
	default:
		return reply{}, false, fmt.Errorf("%w: unexpected reply %.24q", errProtocol, data[:end])
	}
	p.from += used
	return r, true, nil
}

// one waits for a whole reply.
func (p *replies) one() (reply, error) {
	for {
		r, ok, err := p.next()
		if ok || err != nil {
			return r, err
		}
		if err := p.fill(); err != nil {
			return reply{}, err
		}
	}
}

// appendCommand encodes a request in RESP.
func appendCommand(buf []byte, args ...string) []byte {
	buf = append(buf, '*')
	buf = strconv.AppendInt(buf, int64(len(args)), 10)
	buf = append(buf, '\r', '\n')
	for _, a := range args {
		buf = append(buf, '$')
		buf = strconv.AppendInt(buf, int64(len(a)), 10)
		buf = append(buf, '\r', '\n')
		buf = append(buf, a...)
		buf = append(buf, '\r', '\n')
	}
	return buf
}

// dial connects and authenticates.
func dial(ctx context.Context, addr, password string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	conn := c.(*net.TCPConn)
	if password == "" {
		return conn, nil
	}
	if err := authenticate(conn, password); err != nil {
		return nil, errors.Join(fmt.Errorf("authenticate at %s: %w", addr, err), conn.Close())
	}
	return conn, nil
}

func authenticate(conn net.Conn, password string) error {
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(appendCommand(nil, "AUTH", password)); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(io.LimitReader(conn, 1024), 1024).ReadString('\n')
	if err != nil {
		return err
	}
	if line != "+OK\r\n" {
		return errors.New(string(bytes.TrimSpace([]byte(line))))
	}
	return conn.SetDeadline(time.Time{})
}
