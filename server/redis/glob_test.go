package redis

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*c", "abbbc", true}, {"a*c", "ab", false}, {"**a**", "xax", true},
		{"?", "a", true}, {"?", "", false}, {"h?llo", "hello", true}, {"h[ae]llo", "hallo", true}, {"h[ae]llo", "hillo", false},
		{"h[^e]llo", "hallo", true}, {"h[^e]llo", "hello", false}, {"h[a-c]llo", "hbllo", true}, {"h[c-a]llo", "hbllo", true}, {"[a-]", "^", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {`a\`, `a\`, true}, {"[abc", "b", true}, {"[", "a", false}, {"[^", "a", true}, {`[\]]`, "]", true},
		{"[]a", "a", false}, {"key:*:end", "key:1:end:2:end", true}, {"*ab", "aab", true},
	} {
		if got := match([]byte(test.pattern), []byte(test.s)); got != test.want {
			t.Errorf("match(%q, %q) = %v", test.pattern, test.s, got)
		}
	}
}

// Patterns that make a naive matcher take exponential time must not.
func TestMatchIsFast(t *testing.T) {
	begin := time.Now()
	if match([]byte(strings.Repeat("a*", 2000)+"b"), bytes.Repeat([]byte("a"), 20_000)) {
		t.Error("it matches")
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestMatchSameAsRedis(t *testing.T) {
	c := dialRaw(t, startRedis(t))
	// Redis does not match the empty string with "**", which is a quirk of its own.
	text := func(alphabet string, n int) *rapid.Generator[string] {
		return rapid.StringOfN(rapid.SampledFrom([]rune(alphabet)), 1, n, -1)
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern, s := text(`ab*?[]^-\`, 8).Draw(t, "pattern"), text(`ab-]\`, 6).Draw(t, "string")
		c.do("FLUSHALL")
		c.do("SET", s, "1")
		want := len(c.do("SCAN", "0", "COUNT", "1000", "MATCH", pattern)) > len(`["0" []]`)
		if got := match([]byte(pattern), []byte(s)); got != want {
			t.Fatalf("match(%q, %q) = %v", pattern, s, got)
		}
	})
}

// matchSlowly is match by its definition.
func matchSlowly(pattern, s []byte) bool {
	if len(pattern) == 0 {
		return len(s) == 0
	}
	if pattern[0] == '*' {
		return matchSlowly(pattern[1:], s) || len(s) > 0 && matchSlowly(pattern, s[1:])
	}
	if len(s) == 0 {
		return false
	}
	next, ok := matchByte(pattern, 0, s[0])
	return ok && matchSlowly(pattern[next:], s[1:])
}

func FuzzMatch(f *testing.F) {
	for _, pattern := range []string{"a*b?c", "[^a-c]*", `\[x`, "[", "[a-", `[\`} {
		f.Add([]byte(pattern), []byte("abc"))
	}
	f.Fuzz(func(t *testing.T, pattern, s []byte) {
		pattern, s = pattern[:min(len(pattern), 12)], s[:min(len(s), 12)]
		if got, want := match(pattern, s), matchSlowly(pattern, s); got != want {
			t.Fatalf("match(%q, %q) = %v", pattern, s, got)
		}
	})
}

func FuzzParseInt(f *testing.F) {
	for _, s := range []string{"0", "-0", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "+1", "01", "", "-"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := parseInt(b); ok {
			if strconv.FormatInt(n, 10) != string(b) {
				t.Fatalf("%q became %d", b, n)
			}
		}
	})
}
