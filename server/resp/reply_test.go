package resp

import (
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func TestReplies(t *testing.T) {
	tests := []struct {
		name   string
		write  func(w *Reply)
		v2, v3 string
	}{
		{"ok", func(w *Reply) { w.OK() }, "+OK\r\n", "+OK\r\n"},
		{"status", func(w *Reply) { w.Status("a\r\nb") }, "+a  b\r\n", "+a  b\r\n"},
		{"error", func(w *Reply) { w.Error("ERR x\n-y") }, "-ERR x -y\r\n", "-ERR x -y\r\n"},
		{"int", func(w *Reply) { w.Int(-12) }, ":-12\r\n", ":-12\r\n"},
		{"min int", func(w *Reply) { w.Int(math.MinInt64) }, ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"},
		{"bulk", func(w *Reply) { w.Bulk([]byte("a\r\n")) }, "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n"},
		{"bulk string", func(w *Reply) { w.BulkString("0123456789") }, "$10\r\n0123456789\r\n", "$10\r\n0123456789\r\n"},
		{"bulk int", func(w *Reply) { w.BulkInt(42) }, "$2\r\n42\r\n", "$2\r\n42\r\n"},
		{"null", func(w *Reply) { w.Null() }, "$-1\r\n", "_\r\n"},
		{"array", func(w *Reply) { w.Array(1); w.Null() }, "*1\r\n$-1\r\n", "*1\r\n_\r\n"},
		{"map", func(w *Reply) { w.Map(10) }, "*20\r\n", "%10\r\n"},
		{"set", func(w *Reply) { w.Set(2) }, "*2\r\n", "~2\r\n"},
		{"text", func(w *Reply) { w.Text("ab") }, "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"},
	}
	for _, test := range tests {
		for v3, want := range map[bool]string{false: test.v2, true: test.v3} {
			w := Reply{V3: v3}
			test.write(&w)
			if string(w.Buf) != want {
				t.Errorf("%s, version 3 %v: %q, want %q", test.name, v3, w.Buf, want)
			}
		}
	}
}

// A bulk string and an integer must be read back as they were, whatever they hold.
func TestReplyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bulk")
		n := rapid.Int64().Draw(t, "int")
		var w Reply
		w.Bulk(b)
		w.Int(n)
		head := "$" + strconv.Itoa(len(b)) + "\r\n"
		want := head + string(b) + "\r\n:" + strconv.FormatInt(n, 10) + "\r\n"
		if string(w.Buf) != want {
			t.Fatalf("%q, want %q", w.Buf, want)
		}
	})
}
