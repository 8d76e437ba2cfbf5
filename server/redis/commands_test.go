package redis

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"
)

// script is a list of commands, each followed by the reply expected of it.
func runScript(t *testing.T, c *rawClient, script string) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		command, want, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok {
			t.Fatalf("bad line %q", line)
		}
		if got := strings.TrimSpace(c.line(command)); got != strings.TrimSpace(want) {
			t.Errorf("%s\n got %s\nwant %s", command, got, want)
		}
	}
}

func TestCommands(t *testing.T) {
	scripts := map[string]string{
		"connection": `
			PING => PONG
			ping hello => "hello"
			PING a b => -ERR wrong number of arguments for 'ping' command
			ECHO a => "a"
			ECHO => -ERR wrong number of arguments for 'echo' command
			SELECT 0 => OK
			SELECT 1 => -ERR DB index is out of range
			SELECT x => -ERR value is not an integer or out of range
			CLIENT SETNAME bob => OK
			CLIENT GETNAME => "bob"
			CLIENT SETINFO LIB-NAME x => OK
			CLIENT SETINFO FOO x => -ERR Unrecognized option 'FOO'
			CLIENT NO-EVICT on => OK
			CLIENT FOO => -ERR unknown subcommand 'FOO'. Try CLIENT HELP.
			CLIENT => -ERR wrong number of arguments for 'client' command
			CLIENT ID 1 => -ERR wrong number of arguments for 'client|id' command
			RESET => RESET
			CLIENT GETNAME => nil
			HELLO 4 => -NOPROTO unsupported protocol version
			HELLO x => -ERR Protocol version is not an integer or out of range
			HELLO 3 FOO => -ERR Syntax error in HELLO option 'FOO'
			HELLO 2 AUTH a b => -WRONGPASS invalid username-password pair or user is disabled.
			AUTH x => -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
			AUTH default x => OK
			AUTH u x => -WRONGPASS invalid username-password pair or user is disabled.
			FOO a b => -ERR unknown command 'FOO', with args beginning with: 'a' 'b' 
			QUIT => OK`,
		"server": `
			COMMAND GETKEYS mset a 1 b 2 => ["a" "b"]
			COMMAND GETKEYS get a => ["a"]
			COMMAND GETKEYS ping a => -ERR The command has no key arguments
			COMMAND GETKEYS nosuch a => -ERR Invalid command specified
			COMMAND LIST FILTERBY PATTERN hsc* => ["hscan"]
			COMMAND INFO get nosuch => [["get" :2 [readonly fast] :1 :1 :1 [@read @string @fast] [] [] []] nil]
			COMMAND DOCS strlen => ["strlen" ["summary" "The length of a value." "since" "2.2.0" "group" "string"]]
			COMMAND FOO => -ERR unknown subcommand 'FOO'. Try COMMAND HELP.
			CONFIG GET save => ["save" ""]
			CONFIG GET appendonly APPENDFSYNC => ["appendfsync" "always" "appendonly" "yes"]
			CONFIG GET nosuch => []
			CONFIG GET => -ERR wrong number of arguments for 'config|get' command
			CONFIG SET a b => -ERR CONFIG SET is not supported: settings are given when the server starts
			CONFIG FOO => -ERR unknown subcommand 'FOO'. Try CONFIG HELP.
			DBSIZE => :0
			MSET a 1 b 2 c 3 d 4 e 5 => OK
			DBSIZE => :5
			FLUSHDB x => -ERR syntax error
			FLUSHDB ASYNC => OK
			DBSIZE => :0
			FLUSHALL => OK`,
		"strings": `
			GET a => nil
			SET a 1 => OK
			GET a => "1"
			SET a => -ERR wrong number of arguments for 'set' command
			SET a "" => OK
			GET a => ""
			SET a 2 NX => nil
			SET b 2 XX => nil
			SET a 2 XX => OK
			SET a 3 GET => "2"
			SET n 3 GET => nil
			SET a 4 NX GET => "3"
			SET a b NX XX => -ERR syntax error
			SET a b EX 0 => -ERR invalid expire time in 'set' command
			SET a b EX x => -ERR value is not an integer or out of range
			SET a b EX x FOO => -ERR syntax error
			SET a b EX => -ERR syntax error
			SET a b PX 9223372036854775807 => -ERR invalid expire time in 'set' command
			SET a b EX 9223372036854775 => -ERR invalid expire time in 'set' command
			SET a b EX 1 PX 1 => -ERR syntax error
			SET a b KEEPTTL EX 1 => -ERR syntax error
			SET a b EX 1 KEEPTTL => -ERR syntax error
			SET a b EXAT 0 => -ERR invalid expire time in 'set' command
			SET a b EX 100 => OK
			TTL a => :100
			SET a c KEEPTTL => OK
			TTL a => :100
			SET a c => OK
			TTL a => :-1
			SET a c EXAT 1 => OK
			GET a => nil
			SETNX a 1 => :1
			SETNX a 2 => :0
			SETEX a 0 b => -ERR invalid expire time in 'setex' command
			SETEX a 10 b => OK
			TTL a => :10
			PSETEX a -1 b => -ERR invalid expire time in 'psetex' command
			PSETEX a 10000 c => OK
			GETDEL a => "c"
			GETDEL a => nil
			APPEND a "" => :0
			EXISTS a => :1
			APPEND a xy => :2
			APPEND a z => :3
			STRLEN a => :3
			STRLEN nosuch => :0
			HSET h f 1 => :1
			GET h => -WRONGTYPE Operation against a key holding the wrong kind of value
			GETDEL h => -WRONGTYPE Operation against a key holding the wrong kind of value
			STRLEN h => -WRONGTYPE Operation against a key holding the wrong kind of value
			APPEND h x => -WRONGTYPE Operation against a key holding the wrong kind of value
			INCR h => -WRONGTYPE Operation against a key holding the wrong kind of value
			SET h x GET => -WRONGTYPE Operation against a key holding the wrong kind of value
			TYPE h => hash
			SET h x => OK
			TYPE h => string
			MSET a 1 b 2 c 3 => OK
			MSET a => -ERR wrong number of arguments for 'mset' command
			MSET a 1 b => -ERR wrong number of arguments for 'mset' command
			MGET a b nosuch c a => ["1" "2" nil "3" "1"]
			MGET => -ERR wrong number of arguments for 'mget' command`,
		"numbers": `
			INCR n => :1
			INCRBY n 41 => :42
			DECR n => :41
			DECRBY n 41 => :0
			INCRBY n x => -ERR value is not an integer or out of range
			INCRBY n 9223372036854775808 => -ERR value is not an integer or out of range
			INCRBY n 9223372036854775807 => :9223372036854775807
			INCR n => -ERR increment or decrement would overflow
			DECRBY n -9223372036854775808 => -ERR decrement would overflow
			SET n -9223372036854775808 => OK
			DECR n => -ERR increment or decrement would overflow
			SET n 01 => OK
			INCR n => -ERR value is not an integer or out of range
			SET n 5 EX 100 => OK
			INCR n => :6
			TTL n => :100
			HINCRBY h f 5 => :5
			HINCRBY h f -7 => :-2
			HSET h g x => :1
			HINCRBY h g 1 => -ERR hash value is not an integer
			HINCRBY h f x => -ERR value is not an integer or out of range
			HSET h f 9223372036854775807 => :0
			HINCRBY h f 1 => -ERR increment or decrement would overflow`,
		"keys": `
			MSET a 1 b 2 c 3 => OK
			EXISTS a b a nosuch => :3
			DEL a nosuch b => :2
			UNLINK c => :1
			DEL => -ERR wrong number of arguments for 'del' command
			TYPE nosuch => none
			TTL nosuch => :-2
			PTTL nosuch => :-2
			SET a 1 => OK
			TTL a => :-1
			EXPIRE a 100 => :1
			TTL a => :100
			EXPIRE nosuch 100 => :0
			EXPIRE a 50 NX => :0
			EXPIRE a 50 GT => :0
			EXPIRE a 200 GT => :1
			EXPIRE a 300 LT => :0
			EXPIRE a 100 LT => :1
			PERSIST a => :1
			PERSIST a => :0
			EXPIRE a 100 XX => :0
			EXPIRE a 100 GT => :0
			EXPIRE a 100 LT => :1
			EXPIRE a 1 NX XX => -ERR NX and XX, GT or LT options at the same time are not compatible
			EXPIRE a 1 GT LT => -ERR GT and LT options at the same time are not compatible
			EXPIRE a 1 FOO => -ERR Unsupported option FOO
			EXPIRE a x => -ERR value is not an integer or out of range
			EXPIRE a 9223372036854775807 => -ERR invalid expire time in 'expire' command
			PEXPIRE a 100000 => :1
			TTL a => :100
			PEXPIRE a -9223372036854775808 => :1
			SET a 1 => OK
			EXPIRE a -1 => :1
			EXISTS a => :0
			SCAN x => -ERR invalid cursor
			SCAN -1 => -ERR invalid cursor
			SCAN 9223372036854775807 => -ERR invalid cursor
			SCAN 0 COUNT 0 => -ERR syntax error
			SCAN 0 COUNT x => -ERR value is not an integer or out of range
			SCAN 0 FOO 1 => -ERR syntax error
			SCAN 0 MATCH => -ERR syntax error`,
		"hashes": `
			HSET h a 1 b 2 => :2
			HSET h a 3 c 4 => :1
			HSET h a => -ERR wrong number of arguments for 'hset' command
			HSET h a 1 b => -ERR wrong number of arguments for 'hset' command
			HMSET h d 5 => OK
			HMSET h d => -ERR wrong number of arguments for 'hmset' command
			HSETNX h d 6 => :0
			HSETNX h e 6 => :1
			HGET h a => "3"
			HGET h nosuch => nil
			HGET nosuch a => nil
			HMGET h a nosuch b => ["3" nil "2"]
			HMGET nosuch a => [nil]
			HLEN h => :5
			HLEN nosuch => :0
			HEXISTS h a => :1
			HEXISTS h x => :0
			HKEYS h => ["a" "b" "c" "d" "e"]
			HVALS h => ["3" "2" "4" "5" "6"]
			HGETALL h => ["a" "3" "b" "2" "c" "4" "d" "5" "e" "6"]
			HGETALL nosuch => []
			HKEYS nosuch => []
			HSCAN nosuch 0 => ["0" []]
			HSCAN h x => -ERR invalid cursor
			HSCAN h 0 COUNT 0 => -ERR syntax error
			HSCAN h 0 TYPE x => -ERR syntax error
			HSCAN h 0 MATCH [a] COUNT 100 => ["0" ["a" "3"]]
			EXPIRE h 100 => :1
			HSET h a 1 => :0
			TTL h => :100
			HDEL h a b nosuch => :2
			HDEL h c d e => :3
			EXISTS h => :0
			HDEL h a => :0
			SET s 1 => OK
			HSET s a 1 => -WRONGTYPE Operation against a key holding the wrong kind of value
			HGET s a => -WRONGTYPE Operation against a key holding the wrong kind of value
			HMGET s a => -WRONGTYPE Operation against a key holding the wrong kind of value
			HDEL s a => -WRONGTYPE Operation against a key holding the wrong kind of value
			HLEN s => -WRONGTYPE Operation against a key holding the wrong kind of value
			HKEYS s => -WRONGTYPE Operation against a key holding the wrong kind of value
			HGETALL s => -WRONGTYPE Operation against a key holding the wrong kind of value
			HSCAN s 0 => -WRONGTYPE Operation against a key holding the wrong kind of value
			HINCRBY s a 1 => -WRONGTYPE Operation against a key holding the wrong kind of value
			HEXISTS s a => -WRONGTYPE Operation against a key holding the wrong kind of value
			HSETNX s a 1 => -WRONGTYPE Operation against a key holding the wrong kind of value`,
		"version 3": `
			HELLO 3 SETNAME bob => {"server" "redis" "version" "7.0.15" "proto" :3 "id" :1 "mode" "standalone" "role" "master" "modules" []}
			CLIENT GETNAME => "bob"
			GET nosuch => nil
			HSET h a 1 => :1
			HGETALL h => {"a" "1"}
			HKEYS h => ["a"]
			CONFIG GET save => {"save" ""}
			COMMAND INFO get => [["get" :2 <readonly fast> :1 :1 :1 <@read @string @fast> [] [] []]]
			RESET => RESET
			HGETALL h => ["a" "1"]`,
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) { runScript(t, serve(t, Options{}).dial(), script) })
	}
}

// Every command of the list is there, and every command is described.
func TestTable(t *testing.T) {
	table := newTable()
	const wanted = `PING ECHO HELLO AUTH SELECT QUIT COMMAND INFO CONFIG CLIENT RESET GET SET SETNX SETEX PSETEX GETDEL MGET MSET DEL UNLINK EXISTS
		EXPIRE PEXPIRE TTL PTTL PERSIST INCR INCRBY DECR DECRBY APPEND STRLEN TYPE SCAN DBSIZE FLUSHDB FLUSHALL HSET HMSET HGET HMGET HDEL
		HGETALL HLEN HEXISTS HKEYS HVALS HSCAN HINCRBY HSETNX`
	for _, name := range strings.Fields(wanted) {
		if table.find([]byte(name)) == nil {
			t.Errorf("no %s", name)
		}
	}
	for i := range table.list {
		cmd := &table.list[i]
		ways := 0
		for _, set := range []bool{cmd.local != nil, cmd.read != nil, cmd.view != nil, cmd.write != nil} {
			if set {
				ways++
			}
		}
		switch {
		case ways != 1:
			t.Errorf("%s is executed in %d ways", cmd.name, ways)
		case len(cmd.name) > longestName || cmd.name != strings.ToLower(cmd.name):
			t.Errorf("%s: bad name", cmd.name)
		case cmd.summary == "" || cmd.since == "" || cmd.group == "":
			t.Errorf("%s is not described", cmd.name)
		case cmd.write != nil && cmd.flags&flagWrite == 0, cmd.read != nil && cmd.flags&flagReadonly == 0, cmd.view != nil && cmd.flags&flagReadonly == 0:
			t.Errorf("%s: its flags do not say what it does", cmd.name)
		case cmd.local == nil && cmd.first != 1, cmd.merge != nil && cmd.last != -1, cmd.first > 0 && cmd.arity > 0 && cmd.arity <= cmd.first:
			t.Errorf("%s: bad keys", cmd.name)
		}
	}
}

// allOf iterates until the cursor is 0 and returns what was seen, sorted.
func allOf(t *testing.T, c *rawClient, command string, args ...string) []string {
	t.Helper()
	var seen []string
	cursor := "0"
	for range 10_000 {
		words := append(strings.Fields(fmt.Sprintf(command, cursor)), args...)
		reply := c.do(words...)
		var list string
		if n, _ := fmt.Sscanf(reply, "[%q", &cursor); n != 1 {
			t.Fatalf("%v: %s", words, reply)
		}
		_, list, _ = strings.Cut(strings.TrimSuffix(reply, "]]"), " [")
		seen = append(seen, strings.Fields(list)...)
		if cursor == "0" {
			sort.Strings(seen)
			return seen
		}
	}
	t.Fatal("the scan does not end")
	return nil
}

func TestScans(t *testing.T) { scans(t, serve(t, Options{})) }

func scans(t *testing.T, h *harness) {
	c := h.dial()
	c.do("FLUSHALL")
	var want, wantOdd, fields []string
	for i := range 500 {
		key := fmt.Sprintf("key:%03d", i)
		want = append(want, fmt.Sprintf("%q", key))
		if i%2 == 1 {
			wantOdd = append(wantOdd, fmt.Sprintf("%q", key))
			c.do("HSET", key, "f", "1")
		} else {
			c.do("SET", key, "x")
		}
		c.do("HSET", "{hash}", key, "v")
		fields = append(fields, fmt.Sprintf("%q", key), `"v"`)
	}
	c.do("DEL", "nosuch")
	sort.Strings(fields)
	check := func(got, want []string) {
		t.Helper()
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %d %.200v, want %d %.200v", len(got), got, len(want), want)
		}
	}
	for _, count := range []string{"1", "7", "100", "100000"} {
		check(allOf(t, c, "SCAN %s", "MATCH", "key:*", "COUNT", count), want)
		check(allOf(t, c, "SCAN %s", "MATCH", "key:*", "TYPE", "HASH", "COUNT", count), wantOdd)
		check(allOf(t, c, "HSCAN {hash} %s", "COUNT", count), fields)
	}
	check(allOf(t, c, "SCAN %s", "TYPE", "zset"), nil)
	if got := c.do("DBSIZE"); got != ":501" {
		t.Errorf("DBSIZE %s", got)
	}
	if got := c.do("FLUSHDB"); got != "OK" || c.do("DBSIZE") != ":0" {
		t.Errorf("FLUSHDB %s", got)
	}
}

func TestExpiry(t *testing.T) {
	h := serve(t, Options{})
	now := time.Now()
	for _, p := range h.store.partitions {
		p.mu.Lock()
		p.now = func() time.Time { return now }
		p.mu.Unlock()
	}
	c := h.dial()
	runScript(t, c, `
		SET a 1 PX 1500 => OK
		PTTL a => :1500
		TTL a => :2
		HSET h f 1 => :1
		PEXPIRE h 2000 => :1`)
	for _, p := range h.store.partitions {
		p.mu.Lock()
	}
	now = now.Add(1500 * time.Millisecond)
	for _, p := range h.store.partitions {
		p.mu.Unlock()
	}
	runScript(t, c, `
		GET a => nil
		EXISTS a h => :1
		TTL a => :-2
		PTTL h => :500`)
}
