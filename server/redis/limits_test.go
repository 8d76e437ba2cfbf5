package redis

import (
	"fmt"
	"strings"
	"testing"

	"replicanode/replica"
)

// TestTooLargeCommandLeavesNothing, over one key or over many on several partitions.
func TestTooLargeCommandLeavesNothing(t *testing.T) {
	h := serve(t, Options{Store: startHost(t, 4)})
	c := h.dial()
	long := strings.Repeat("k", 50_000)
	words := []string{"HSET", long}
	for i := range 6000 {
		words = append(words, fmt.Sprint(i), "v")
	}
	if got := c.do(words...); !strings.HasPrefix(got, "-ERR command of ") {
		t.Errorf("HSET that the log multiplies: %.100s", got)
	}
	if got := c.do("EXISTS", long); got != ":0" {
		t.Errorf("the hash after it: %s", got)
	}
	words = []string{"MSET", "small", "v"}
	for i := range 4 {
		words = append(words, fmt.Sprintf("{tag}%d", i), string(make([]byte, 7<<20)))
	}
	if got := c.do(words...); !strings.HasPrefix(got, "-ERR command of ") {
		t.Errorf("MSET with a part that is too large: %.100s", got)
	}
	if got := c.do("EXISTS", "small", "{tag}0"); got != ":0" {
		t.Errorf("keys after it: %s", got)
	}
	if got := c.do("HSET", long, "f", "v"); got != ":1" {
		t.Errorf("afterwards: %.100s", got)
	}
	if got := c.do(append([]string{"MSET"}, words[1:7]...)...); got != "OK" {
		t.Errorf("afterwards: %.100s", got)
	}
	if got := c.do("STRLEN", "{tag}1"); got != fmt.Sprintf(":%d", 7<<20) {
		t.Errorf("STRLEN: %s", got)
	}
}

// TestReadsGoOnWithoutSpace: a read that waits behind a write which the log has no space for is answered all the same.
func TestReadsGoOnWithoutSpace(t *testing.T) {
	h := serve(t, Options{})
	c := h.dial()
	c.do("SET", "a", "1")
	for _, end := range []error{replica.ErrNoSpace, replica.ErrResultUnknown} {
		h.store.endWith(end)
		c.write("SET a 2\r\nGET a\r\nSTRLEN a\r\n")
		if got := c.read(); !strings.HasPrefix(got, "-") {
			t.Errorf("SET: %s", got)
		}
		// The fake executes what it then refuses: which of the values is read does not matter here.
		if got := c.read(); got != `"1"` && got != `"2"` {
			t.Errorf("GET after %v: %s", end, got)
		}
		if got := c.read(); got != ":1" {
			t.Errorf("STRLEN after %v: %s", end, got)
		}
		h.store.endWith(nil)
	}
	c.write("SET a 3\r\nGET a\r\n")
	if got := c.read() + c.read(); got != `OK"3"` {
		t.Errorf("with space again: %s", got)
	}
}
