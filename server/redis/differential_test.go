package redis

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"replicanode/internal/fixture"
)

// startRedis runs a stock Redis for the test and returns its address; it skips the test where there is none.
func startRedis(t *testing.T) string {
	t.Helper()
	addr, _ := fixture.StockRedis(t)
	return addr
}

// drawCommand makes a command about a few keys and fields. Times to live are long, so that no clock decides a reply.
func drawCommand(t *rapid.T) []string {
	pick := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
	key := func() string { return pick("key", "a", "b", "c", "{a}x", "h", "hh") }
	field := func() string { return pick("field", "f", "g", "h", "") }
	value := func() string {
		return pick("value", "", "1", "-7", "007", "9223372036854775807", "-9223372036854775808", "abc", "\r\n\x00", " 1", "3.5")
	}
	number := func() string {
		return pick("number", "1", "-1", "0", "100", "9223372036854775807", "-9223372036854775808", "x", "+1", "1.0")
	}
	ttl := func() string {
		return pick("ttl", "100000", "200000", "-1", "0", "9223372036854775807", "-9223372036854775808", "x", "10000000000000")
	}
	many := func(n int, f func() string) (list []string) {
		for range rapid.IntRange(0, n).Draw(t, "n") {
			list = append(list, f())
		}
		return list
	}
	setWord := func() string {
		return pick("option", "NX", "XX", "GET", "KEEPTTL", "EX 100000", "PX 200000000", "EXAT 1", "EXAT 99999999999", "PXAT 1", "EX", "EX 0", "PX x", "FOO", "nx", "get")
	}
	expireWord := func() string { return pick("condition", "NX", "XX", "GT", "LT", "gt", "FOO") }
	command := pick("command", "GET", "SET", "SETNX", "SETEX", "PSETEX", "GETDEL", "MGET", "MSET", "DEL", "UNLINK", "EXISTS", "EXPIRE", "PEXPIRE", "TTL", "PTTL",
		"PERSIST", "INCR", "INCRBY", "DECR", "DECRBY", "APPEND", "STRLEN", "TYPE", "HSET", "HMSET", "HGET", "HMGET", "HDEL", "HGETALL", "HLEN",
		"HEXISTS", "HKEYS", "HVALS", "HINCRBY", "HSETNX", "PING", "ECHO", "SELECT", "nosuch")
	words := []string{command}
	switch command {
	case "SET":
		words = append(words, key(), value())
		for _, w := range many(3, setWord) {
			words = append(words, strings.Fields(w)...)
		}
	case "SETNX", "APPEND":
		words = append(words, key(), value())
	case "SETEX", "PSETEX":
		words = append(words, key(), ttl(), value())
	case "MGET", "DEL", "UNLINK", "EXISTS":
		words = append(words, many(4, key)...)
	case "MSET":
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			words = append(words, key(), value())
		}
		words = append(words, many(1, key)...)
	case "EXPIRE", "PEXPIRE":
		words = append(words, key(), ttl())
		if conditions := many(2, expireWord); len(conditions) > 0 {
			// Comparing with an equal time would compare the two servers' clocks.
			words[2] = strconv.Itoa(rapid.IntRange(100_000, 1<<40).Draw(t, "distinct ttl"))
			words = append(words, conditions...)
		}
	case "INCRBY", "DECRBY":
		words = append(words, key(), number())
	case "HSET", "HMSET":
		words = append(words, key())
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			words = append(words, field(), value())
		}
		words = append(words, many(1, field)...)
	case "HGET", "HEXISTS":
		words = append(words, key(), field())
	case "HMGET", "HDEL":
		words = append(words, key())
		words = append(words, many(3, field)...)
	case "HINCRBY":
		words = append(words, key(), field(), number())
	case "HSETNX":
		words = append(words, key(), field(), value())
	case "PING", "ECHO":
		words = append(words, many(2, value)...)
	case "nosuch":
		words = append(words, many(2, key)...)
	case "SELECT":
		words = append(words, pick("database", "0", "x", "100"))
	default:
		words = append(words, key())
	}
	return words
}

var inQuotes = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// normal is a reply without what the two servers may differ in: the order of a hash's fields.
func normal(command, reply string) string {
	switch strings.ToUpper(command) {
	case "HGETALL", "HKEYS", "HVALS":
		parts := inQuotes.FindAllString(reply, -1)
		if command == "HGETALL" {
			var pairs []string
			for i := 0; i+1 < len(parts); i += 2 {
				pairs = append(pairs, parts[i]+"="+parts[i+1])
			}
			parts = pairs
		}
		if len(parts) > 0 {
			return fmt.Sprint(sorted(parts))
		}
	}
	return reply
}

// same compares two replies; times to live may differ by what passes between two commands.
func same(command, got, want string) bool {
	a, errA := strconv.Atoi(strings.TrimPrefix(got, ":"))
	b, errB := strconv.Atoi(strings.TrimPrefix(want, ":"))
	switch {
	case errA != nil || errB != nil || a < 10 || b < 10:
	case command == "TTL":
		return max(a-b, b-a) <= 20
	case command == "PTTL":
		return max(a-b, b-a) <= 20_000
	}
	return normal(command, got) == normal(command, want)
}

// differential sends the same random commands, in random pipelines, to two servers and compares the replies.
func differential(t *testing.T, ours, redis string) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		a, b := dialRaw(outer, ours), dialRaw(outer, redis)
		defer a.nc.Close()
		defer b.nc.Close()
		v3 := rapid.Bool().Draw(t, "version 3")
		for _, c := range []*rawClient{a, b} {
			if c.do("FLUSHALL") != "OK" {
				t.Fatal("cannot begin")
			}
			if v3 {
				c.do("HELLO", "3")
			} else {
				c.do("HELLO", "2")
			}
		}
		for range rapid.IntRange(1, 20).Draw(t, "pipelines") {
			var commands [][]string
			for range rapid.IntRange(1, 12).Draw(t, "commands") {
				commands = append(commands, drawCommand(t))
			}
			for _, words := range commands {
				a.send(words...)
				b.send(words...)
			}
			for _, words := range commands {
				if got, want := a.read(), b.read(); !same(words[0], got, want) {
					t.Fatalf("%q\n got %s\nwant %s", words, got, want)
				}
			}
		}
	})
}

func TestSameAsRedis(t *testing.T) {
	redis := startRedis(t)
	differential(t, serve(t, Options{}).s.Addr().String(), redis)
}

// TestIntrospectionLikeRedis: what client libraries and tools ask besides the data, and how their mistakes are answered.
func TestIntrospectionLikeRedis(t *testing.T) {
	stock := dialRaw(t, startRedis(t))
	ours := serve(t, Options{}).dial()
	for _, line := range []string{
		"CLIENT", "CLIENT FOO", "CLIENT ID x", "CLIENT GETNAME", "CLIENT SETNAME", "CLIENT SETNAME a", "CLIENT GETNAME", `CLIENT SETNAME ""`, "CLIENT GETNAME",
		"CLIENT NO-EVICT", "CLIENT NO-EVICT on", "CLIENT NO-EVICT off", "CLIENT NO-EVICT maybe", "CLIENT NO-EVICT on off", "CLIENT LIST TYPE foo", "CLIENT LIST TYPE",
		"CLIENT LIST foo", "CLIENT LIST ID", "CLIENT LIST ID x", "CLIENT LIST ID 999999", "CLIENT LIST TYPE replica", "CLIENT GETREDIR", "CLIENT HELP x",
		"COMMAND FOO", "COMMAND COUNT x", "COMMAND HELP x", "COMMAND INFO nosuch", "COMMAND GETKEYS", "COMMAND GETKEYS foo", "COMMAND GETKEYS foo bar", "COMMAND GETKEYS get",
		"COMMAND GETKEYS get a", "COMMAND GETKEYS get a b", "COMMAND GETKEYS ping", "COMMAND GETKEYS ping a", "COMMAND GETKEYS mset a 1 b 2", "COMMAND GETKEYS mset a 1 b",
		"COMMAND LIST x", "COMMAND LIST FILTERBY", "COMMAND LIST FILTERBY PATTERN", "COMMAND LIST FILTERBY PATTERN hgetal*", "COMMAND LIST FILTERBY ACLCAT nosuch",
		"COMMAND LIST FILTERBY MODULE foo", "COMMAND LIST FILTERBY FOO bar", "COMMAND DOCS nosuch",
		"CONFIG", "CONFIG FOO", "CONFIG GET", "CONFIG HELP x", "CONFIG GET nosuch", "CONFIG GET maxmemory-policy", "CONFIG SET", "CONFIG SET a", "INFO nosuch",
		"HELLO 4", "HELLO a", "HELLO 2 AUTH", "HELLO 2 FOO", "HELLO 2 AUTH nobody x", "SELECT a", "SELECT 99999999999999999999", "ECHO", "PING a b", "FLUSHDB x", "DBSIZE x", "RESET x",
	} {
		if a, b := ours.line(line), stock.line(line); a != b {
			t.Errorf("%s\nours  %s\nRedis %s", line, a, b)
		}
	}
	// Flags and access categories: no more than Redis has, and for these commands the same categories.
	for _, name := range []string{"get", "set", "hgetall", "incr", "scan", "select", "del"} {
		a, b := ours.line("COMMAND INFO "+name), stock.line("COMMAND INFO "+name)
		category := regexp.MustCompile(`@[a-z]+`)
		if got, want := sorted(category.FindAllString(a, -1)), sorted(category.FindAllString(b, -1)); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("categories of %s: %v, Redis has %v", name, got, want)
		}
	}
	for _, command := range []string{"CLIENT", "COMMAND", "CONFIG"} {
		if got := ours.line(command + " HELP"); !strings.HasPrefix(got, "["+command+" <subcommand>") || !strings.HasSuffix(got, "Print this help.]") {
			t.Errorf("%s HELP: %s", command, got)
		}
	}
}
