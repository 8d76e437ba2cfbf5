package resp

import "bytes"

var cr = []byte{'\r'}

// parseInline parses a request of one line. Quoted words are unescaped in place: they never get longer.
func (r *Reader) parseInline() (done bool, err error) {
	line := r.buf[r.start:r.end]
	i := bytes.IndexByte(line[r.scanned:], '\n')
	if i < 0 {
		r.scanned = len(line)
		if len(bytes.TrimSuffix(line, cr)) > r.limits.MaxInlineBytes {
			return false, errLongInline
		}
		return false, nil
	}
	n := r.scanned + i
	r.pos = r.start + n + 1
	line = bytes.TrimSuffix(line[:n], cr)
	if len(line) > r.limits.MaxInlineBytes {
		return false, errLongInline
	}
	return true, r.splitWords(line)
}

// splitWords finds the words of an inline request.
func (r *Reader) splitWords(line []byte) error {
	i := 0
	for {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return nil
		}
		if len(r.spans) == r.limits.MaxArgs {
			return errCount
		}
		from := i
		next, to, ok := unquote(line, i)
		if !ok {
			return errQuotes
		}
		if to-from > r.limits.MaxBulkBytes {
			return errLength
		}
		if len(r.spans) == cap(r.spans) {
			if err := r.growSpans(); err != nil {
				return err
			}
		}
		r.spans = append(r.spans, span{from, to})
		i = next
	}
}

// unquote reads the word at line[i], unescapes it in place, and returns where the line goes on and where the word ends.
func unquote(line []byte, i int) (next, to int, ok bool) {
	to = i
	var quote byte
	for i < len(line) {
		c := line[i]
		switch {
		case quote == 0 && isSpace(c):
			return i, to, true
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
			i++
			continue
		case quote != 0 && c == quote:
			// A closing quote ends the word; anything but space after it is a mistake.
			if i+1 < len(line) && !isSpace(line[i+1]) {
				return 0, 0, false
			}
			return i + 1, to, true
		case quote == '"' && c == '\\' && i+1 < len(line):
			c, i = escape(line, i)
		case quote == '\'' && c == '\\' && i+1 < len(line) && line[i+1] == '\'':
			c = '\''
			i++
		}
		line[to] = c
		to++
		i++
	}
	return i, to, quote == 0
}

// escape decodes the escape sequence at line[i] of a double-quoted word and returns its byte and its last position.
func escape(line []byte, i int) (byte, int) {
	if line[i+1] == 'x' && i+3 < len(line) {
		high, ok1 := hex(line[i+2])
		low, ok2 := hex(line[i+3])
		if ok1 && ok2 {
			return high<<4 | low, i + 3
		}
	}
	c := line[i+1]
	switch c {
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'b':
		c = '\b'
	case 'a':
		c = '\a'
	}
	return c, i + 1
}

func hex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' || c == 0 }
