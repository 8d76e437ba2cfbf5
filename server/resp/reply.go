package resp

import "strconv"

// Reply collects what is to be sent to a client. The zero value is an empty reply of version 2.
type Reply struct {
	// Buf is the encoded reply.
	Buf []byte
	// V3 is set for a client that speaks version 3.
	V3 bool
}

// Len is the number of bytes collected.
func (w *Reply) Len() int { return len(w.Buf) }

// Truncate drops all but the first n bytes.
func (w *Reply) Truncate(n int) { w.Buf = w.Buf[:n] }

// Raw appends what is encoded already.
func (w *Reply) Raw(b []byte) { w.Buf = append(w.Buf, b...) }

// OK appends the status OK.
func (w *Reply) OK() { w.Buf = append(w.Buf, "+OK\r\n"...) }

// Status appends a simple string. Line ends in it are replaced by spaces.
func (w *Reply) Status(s string) { w.line('+', s) }

// Error appends an error; its first word is the code, such as ERR. Line ends in it are replaced by spaces.
func (w *Reply) Error(s string) { w.line('-', s) }

func (w *Reply) line(kind byte, s string) {
	w.Buf = append(w.Buf, kind)
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		w.Buf = append(w.Buf, c)
	}
	w.Buf = append(w.Buf, '\r', '\n')
}

func (w *Reply) header(kind byte, n int64) {
	w.Buf = append(w.Buf, kind)
	if n >= 0 && n < 10 {
		w.Buf = append(w.Buf, byte('0'+n), '\r', '\n')
		return
	}
	w.Buf = strconv.AppendInt(w.Buf, n, 10)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Int appends an integer.
func (w *Reply) Int(n int64) { w.header(':', n) }

// Bulk appends a bulk string.
func (w *Reply) Bulk(b []byte) {
	w.header('$', int64(len(b)))
	w.Buf = append(w.Buf, b...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// BulkString appends a bulk string.
func (w *Reply) BulkString(s string) {
	w.header('$', int64(len(s)))
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// BulkInt appends an integer as a bulk string.
func (w *Reply) BulkInt(n int64) {
	var digits [20]byte
	w.Bulk(strconv.AppendInt(digits[:0], n, 10))
}

// Null appends the absence of a value.
func (w *Reply) Null() {
	if w.V3 {
		w.Buf = append(w.Buf, "_\r\n"...)
		return
	}
	w.Buf = append(w.Buf, "$-1\r\n"...)
}

// Array begins an array of n values, which must follow.
func (w *Reply) Array(n int) { w.header('*', int64(n)) }

// Map begins a map of n keys, each followed by its value; version 2 sees an array of 2n.
func (w *Reply) Map(n int) {
	if w.V3 {
		w.header('%', int64(n))
		return
	}
	w.header('*', 2*int64(n))
}

// Set begins a set of n values; version 2 sees an array.
func (w *Reply) Set(n int) {
	if w.V3 {
		w.header('~', int64(n))
		return
	}
	w.header('*', int64(n))
}

// Text appends text for people; version 2 sees a bulk string.
func (w *Reply) Text(s string) {
	if !w.V3 {
		w.BulkString(s)
		return
	}
	w.header('=', int64(len(s)+4))
	w.Buf = append(w.Buf, "txt:"...)
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// AppendCommand appends a request with these arguments to dst, as a client sends it.
func AppendCommand(dst []byte, args ...[]byte) []byte {
	w := Reply{Buf: dst}
	w.Array(len(args))
	for _, arg := range args {
		w.Bulk(arg)
	}
	return w.Buf
}
