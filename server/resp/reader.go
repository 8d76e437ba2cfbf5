package resp

import (
	"bytes"
	"io"
	"strconv"
	"unsafe"
)

// span is an argument's place in the buffer, counted from the beginning of its request.
type span struct{ from, to int }

// Reader parses requests from a stream.
type Reader struct {
	src    io.Reader
	limits Limits
	budget *Budget

	buf   []byte
	start int // beginning of the request being parsed
	pos   int // next byte to parse
	end   int // end of what was read

	filled bool // the last read left no room in the buffer

	// The request whose end has not arrived yet. Offsets are counted from start, so that the buffer may move under them.
	left    int // arguments still to come; 0: between requests
	bulk    int // length of the argument whose header was parsed; -1: none
	scanned int // how much of an inline request is known to hold no line end
	spans   []span

	args     [][]byte // what Next handed out since the last Fill, without what stands in arrays that became full
	argsRoom int      // arguments that all those arrays have room for
	read     int64    // bytes read so far
	err      error    // the first protocol error; it stays
}

// NewReader returns a Reader of src. Zero limits are replaced by their defaults. budget may be nil.
func NewReader(src io.Reader, limits Limits, budget *Budget) *Reader {
	limits.EnsureDefaults()
	return &Reader{src: src, limits: limits, budget: budget, buf: make([]byte, baseBuffer), bulk: -1}
}

// SetLimits replaces the limits, for every header parsed from now on.
func (r *Reader) SetLimits(limits Limits) {
	limits.EnsureDefaults()
	r.limits = limits
}

// Partial reports whether a request has begun whose end has not arrived.
func (r *Reader) Partial() bool { return r.end > r.start }

// BytesRead is the number of bytes taken from the stream so far.
func (r *Reader) BytesRead() int64 { return r.read }

// Close gives the reader's memory back to its budget. The reader and the arguments it returned must not be used after it.
func (r *Reader) Close() {
	r.budget.Take(-(len(r.buf) - baseBuffer + spansCost(cap(r.spans)) + argsCost(r.argsRoom)))
	r.buf, r.spans, r.args, r.argsRoom = make([]byte, baseBuffer), nil, nil, 0
	r.start, r.pos, r.end, r.left, r.bulk, r.scanned = 0, 0, 0, 0, -1, 0
}

// Next returns the next request that is completely buffered. With ok false and no error, call Fill for more. An error is a
// *ProtocolError and final. The arguments stay valid, and their bytes unchanged, until the next Fill; there is at least one.
func (r *Reader) Next() (args [][]byte, ok bool, err error) {
	if r.err != nil {
		return nil, false, r.err
	}
	for r.pos < r.end {
		var done bool
		switch {
		case r.left > 0:
			done, err = r.parseArgs()
		case r.buf[r.pos] == '*':
			done, err = r.parseCount()
		default:
			done, err = r.parseInline()
		}
		if err != nil {
			r.err = err
			return nil, false, err
		}
		if !done {
			return nil, false, nil
		}
		if r.left == 0 {
			if args, err = r.take(); err != nil {
				r.err = err
				return nil, false, err
			}
			if len(args) > 0 {
				return args, true, nil
			}
		}
	}
	return nil, false, nil
}

// take turns the spans of a complete request into arguments and begins the next request.
func (r *Reader) take() ([][]byte, error) {
	if len(r.spans) > cap(r.args)-len(r.args) {
		if err := r.growArgs(); err != nil {
			return nil, err
		}
	}
	first := len(r.args)
	for _, s := range r.spans {
		r.args = append(r.args, r.buf[r.start+s.from:r.start+s.to:r.start+s.to])
	}
	r.spans = r.spans[:0]
	r.start, r.scanned = r.pos, 0
	return r.args[first:len(r.args):len(r.args)], nil
}

// header reads the number of a line "<type><number>\r\n" at pos. size is the line's length, 0 while its end has not arrived.
func (r *Reader) header() (value int64, valid bool, size int, err error) {
	line := r.buf[r.pos:min(r.end, r.pos+maxHeader)]
	i := 1
	for ; i < len(line); i++ {
		c := line[i] - '0'
		if c > 9 || value > 1<<40 {
			break
		}
		value = value*10 + int64(c)
	}
	if i+1 < len(line) && line[i] == '\r' && line[i+1] == '\n' && i > 1 && (line[1] != '0' || i == 2) {
		return value, true, i + 2, nil
	}
	at := bytes.IndexByte(line, '\r')
	switch {
	case at < 0 && len(line) == maxHeader:
		return 0, false, 0, errLongHeader
	case at < 0 || at+1 == len(line):
		return 0, false, 0, nil
	case line[at+1] != '\n':
		return 0, false, 0, errNoLineEnd
	}
	value, parseErr := strconv.ParseInt(string(line[1:at]), 10, 64)
	// What is left for ParseInt to accept are negative numbers, and forms that Redis does not take: a plus sign, leading zeros.
	return value, parseErr == nil && value < 0, at + 2, nil
}

var (
	errLongHeader = protocolError(LongHeader, "too big count string")
	errNoLineEnd  = protocolError(BadEnd, "expected CRLF")
	errLongInline = protocolError(LongInline, "too big inline request")
	errQuotes     = protocolError(BadQuotes, "unbalanced quotes in request")
	errCount      = protocolError(BadCount, "invalid multibulk length")
	errCountAuth  = protocolError(BadCount, "unauthenticated multibulk length")
	errLength     = protocolError(BadLength, "invalid bulk length")
	errLengthAuth = protocolError(BadLength, "unauthenticated bulk length")
	errRequest    = protocolError(LongRequest, "too big request")
	errMemory     = &ProtocolError{Kind: NoMemory, Text: "ERR no memory left for client buffers"}
)

func (r *Reader) parseCount() (done bool, err error) {
	n, valid, size, err := r.header()
	if err != nil || size == 0 {
		return false, err
	}
	if !valid || n > int64(r.limits.MaxArgs) {
		if valid && r.limits.Unauthenticated {
			return false, errCountAuth
		}
		return false, errCount
	}
	r.pos += size
	r.left, r.bulk = int(max(n, 0)), -1
	return true, nil
}

// parseArgs parses as many of the request's arguments as have arrived. It is done when that is all of them.
func (r *Reader) parseArgs() (done bool, err error) {
	for r.left > 0 {
		if r.bulk < 0 {
			if r.pos == r.end {
				return false, nil
			}
			if err := r.parseLength(); err != nil || r.bulk < 0 {
				return false, err
			}
		}
		to := r.pos + r.bulk
		if to+2 > r.end {
			return false, nil
		}
		if r.buf[to] != '\r' || r.buf[to+1] != '\n' {
			return false, errNoLineEnd
		}
		if len(r.spans) == cap(r.spans) {
			if err := r.growSpans(); err != nil {
				return false, err
			}
		}
		r.spans = append(r.spans, span{r.pos - r.start, to - r.start})
		r.pos, r.bulk = to+2, -1
		r.left--
	}
	return true, nil
}

func (r *Reader) parseLength() error {
	if c := r.buf[r.pos]; c != '$' {
		return protocolError(BadType, "expected '$', got "+strconv.QuoteRuneToASCII(rune(c)))
	}
	n, valid, size, err := r.header()
	if err != nil || size == 0 {
		return err
	}
	if !valid || n < 0 || n > int64(r.limits.MaxBulkBytes) {
		if valid && n >= 0 && r.limits.Unauthenticated {
			return errLengthAuth
		}
		return errLength
	}
	if r.pos+size+int(n)+2-r.start > r.limits.MaxRequestBytes {
		return errRequest
	}
	r.pos += size
	r.bulk = int(n)
	return nil
}

// Fill reads from the stream once, blocking, and ends the validity of all arguments returned so far. It returns the stream's
// error, io.EOF at its end, or a *ProtocolError when there is no room for what is to come.
func (r *Reader) Fill() error {
	r.release()
	if r.end == len(r.buf) {
		if err := r.grow(); err != nil {
			r.err = err
			return err
		}
	} else if r.filled && len(r.buf) < keepBuffer {
		// The client sends more at once than the buffer holds. Growing it is a kindness: without memory, go on as it is.
		_ = r.grow()
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		if n < 0 || n > len(r.buf)-r.end {
			return io.ErrNoProgress
		}
		r.end += n
		r.read += int64(n)
		if n > 0 {
			r.filled = r.end == len(r.buf)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// release forgets the requests handed out and moves what is left of the buffer to its beginning.
func (r *Reader) release() {
	if cap(r.args) > keepArgs {
		r.args = nil
	}
	if room := cap(r.args); room != r.argsRoom {
		r.budget.Take(argsCost(room) - argsCost(r.argsRoom))
		r.argsRoom = room
	}
	if cap(r.spans) > keepArgs && len(r.spans) == 0 {
		r.budget.Take(-spansCost(cap(r.spans)))
		r.spans = nil
	}
	clear(r.args)
	r.args = r.args[:0]

	if r.start == r.end && len(r.buf) > keepBuffer {
		r.budget.Take(-(len(r.buf) - baseBuffer))
		r.buf = make([]byte, baseBuffer)
		r.start, r.pos, r.end = 0, 0, 0
		return
	}
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.pos -= r.start
		r.end -= r.start
		r.start = 0
	}
}

// grow doubles the buffer, which is full, or less when the argument being read needs less.
func (r *Reader) grow() error {
	size := 2 * len(r.buf)
	if r.bulk >= 0 && size > keepBuffer {
		size = max(min(size, r.pos+r.bulk+2+baseBuffer), len(r.buf)+baseBuffer)
	}
	// Room beyond the longest request is for the requests that follow it in the stream.
	if limit := r.limits.MaxRequestBytes + keepBuffer; size > limit {
		if size = limit; size <= len(r.buf) {
			return errRequest
		}
	}
	if !r.budget.Take(size - len(r.buf)) {
		return errMemory
	}
	buf := make([]byte, size)
	copy(buf, r.buf[:r.end])
	r.buf = buf
	return nil
}

// spansCost and argsCost are what the budget is charged for room for n of them.
func spansCost(n int) int { return max(0, n-baseArgs) * int(unsafe.Sizeof(span{})) }
func argsCost(n int) int  { return max(0, n-baseArgs) * int(unsafe.Sizeof([]byte(nil))) }

// growSpans doubles the room for spans, or less when the request being read has fewer arguments.
func (r *Reader) growSpans() error {
	size := max(2*cap(r.spans), baseArgs)
	if r.left > 0 {
		size = max(min(size, len(r.spans)+r.left), baseArgs)
	}
	// While the old spans are copied both are held.
	if !r.budget.Take(spansCost(size)) {
		return errMemory
	}
	r.budget.Take(-spansCost(cap(r.spans)))
	r.spans = append(make([]span, 0, size), r.spans...)
	return nil
}

// growArgs begins an array with room for the arguments of the request that was read. Whoever got arguments holds the old arrays,
// so that they count until the next Fill.
func (r *Reader) growArgs() error {
	size := max(len(r.spans), min(2*cap(r.args), keepArgs), baseArgs)
	if !r.budget.Take(argsCost(r.argsRoom+size) - argsCost(r.argsRoom)) {
		return errMemory
	}
	r.args, r.argsRoom = make([][]byte, 0, size), r.argsRoom+size
	return nil
}
