package redis

import (
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/server/resp"
)

// flags say what a command does, and when it may run.
type flags uint16

const (
	flagWrite    flags = 1 << iota // changes keys
	flagReadonly                   // reads keys
	flagFast                       // takes constant or logarithmic time
	flagNoAuth                     // allowed before authentication
	flagAdmin                      // for operators
	flagLoading                    // allowed before the store is there
	flagBulky                      // answers with a value, of up to MaxBulkBytes
)

// flagNames are the flags as COMMAND shows them.
var flagNames = []struct {
	flag flags
	name string
}{
	{flagWrite, "write"}, {flagReadonly, "readonly"}, {flagFast, "fast"}, {flagLoading, "loading"}, {flagNoAuth, "no_auth"}, {flagAdmin, "admin"},
}

// command describes one command: everything dispatch, COMMAND and the documentation know about it.
type command struct {
	name string
	// arity is the number of arguments with the name; negative: at least so many.
	arity int
	flags flags
	// The keys are the arguments first, first+step … last; a negative last counts from the end; first 0: no keys.
	first, last, step int
	group             string // as COMMAND DOCS has it: string, hash, generic, connection, server
	since             string // the version of Redis that brought it
	summary           string

	// Exactly one of local, read, view and write is set.
	local func(c *conn, args [][]byte) // answers on the connection
	read  func(r Reader, o *Op) error  // reads one key, or one partition's part of many
	view  func(v View, o *Op) error    // reads what only a View can
	write func(tx Tx, o *Op) error     // reads and writes
	merge func(w *resp.Reply, o *Op)   // for many keys: the reply from those of the parts
	// prepare parses arguments before read, view or write; it returns the error to answer with, or nothing.
	prepare func(o *Op) string

	calls prometheus.Counter
}

func (c *command) arityFits(n int) bool {
	if c.arity < 0 {
		return n >= -c.arity
	}
	return n == c.arity
}

// table is the set of commands.
type table struct {
	list   []command
	byName map[string]*command
}

func newTable() *table {
	t := &table{byName: map[string]*command{}}
	for _, list := range [][]command{connectionCommands(), serverCommands(), genericCommands(), stringCommands(), hashCommands()} {
		t.list = append(t.list, list...)
	}
	for i := range t.list {
		t.byName[t.list[i].name] = &t.list[i]
	}
	return t
}

// longestName is more than the longest command's name has.
const longestName = 16

// find returns the command with this name, in any case; nil when there is none.
func (t *table) find(name []byte) *command {
	var lower [longestName]byte
	if len(name) > len(lower) {
		return nil
	}
	for i, b := range name {
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		lower[i] = b
	}
	return t.byName[string(lower[:len(name)])]
}

func connectionCommands() []command {
	const group = "connection"
	return []command{
		{name: "ping", arity: -1, flags: flagFast, group: group, since: "1.0.0", summary: "Answers PONG, or its argument.", local: ping},
		{name: "echo", arity: 2, flags: flagFast, group: group, since: "1.0.0", summary: "Answers its argument.", local: echo},
		{name: "hello", arity: -1, flags: flagFast | flagNoAuth | flagLoading, group: group, since: "6.0.0", summary: "Chooses the protocol version, and may authenticate.", local: hello},
		{name: "auth", arity: -2, flags: flagFast | flagNoAuth | flagLoading, group: group, since: "1.0.0", summary: "Authenticates the connection.", local: auth},
		{name: "select", arity: 2, flags: flagFast | flagLoading, group: group, since: "1.0.0", summary: "Accepts database 0, the only one.", local: selectDB},
		{name: "quit", arity: -1, flags: flagFast | flagNoAuth | flagLoading, group: group, since: "1.0.0", summary: "Closes the connection.", local: quit},
		{name: "reset", arity: 1, flags: flagFast | flagNoAuth | flagLoading, group: group, since: "6.2.0", summary: "Makes the connection as it was when it was opened.", local: reset},
		{name: "client", arity: -2, flags: flagLoading, group: group, since: "2.4.0", summary: "ID, GETNAME, SETNAME, SETINFO, INFO, LIST, NO-EVICT, NO-TOUCH, GETREDIR.", local: client},
	}
}

func serverCommands() []command {
	const group = "server"
	return []command{
		{name: "command", arity: -1, flags: flagLoading, group: group, since: "2.8.13", summary: "Describes the commands: COUNT, DOCS, INFO, LIST, GETKEYS.", local: commandCommand},
		{name: "info", arity: -1, flags: flagLoading, group: group, since: "1.0.0", summary: "Describes the server, by sections.", local: info},
		{name: "config", arity: -2, flags: flagAdmin | flagLoading, group: group, since: "2.0.0", summary: "GET shows settings under Redis' names.", local: config},
		{name: "dbsize", arity: 1, flags: flagReadonly, group: group, since: "1.0.0", summary: "Counts the keys, by reading them.", local: dbsize},
		{name: "flushdb", arity: -1, flags: flagWrite, group: group, since: "1.0.0", summary: "Deletes all keys, not at once.", local: flush},
		{name: "flushall", arity: -1, flags: flagWrite, group: group, since: "1.0.0", summary: "Deletes all keys, not at once.", local: flush},
		{name: "scan", arity: -2, flags: flagReadonly, group: "generic", since: "2.8.0", summary: "Iterates over the keys.", local: scan},
	}
}

func genericCommands() []command {
	const group = "generic"
	return []command{
		{name: "del", arity: -2, flags: flagWrite, first: 1, last: -1, step: 1, group: group, since: "1.0.0", summary: "Deletes keys.", write: del, merge: mergeCount},
		{name: "unlink", arity: -2, flags: flagWrite | flagFast, first: 1, last: -1, step: 1, group: group, since: "4.0.0", summary: "Deletes keys.", write: del, merge: mergeCount},
		{name: "exists", arity: -2, flags: flagReadonly | flagFast, first: 1, last: -1, step: 1, group: group, since: "1.0.0", summary: "Counts which of the keys exist.", read: exists, merge: mergeCount},
		{name: "expire", arity: -3, flags: flagWrite | flagFast, first: 1, last: 1, step: 1, group: group, since: "1.0.0", summary: "Sets when a key expires, in seconds from now.", prepare: prepareExpire, write: expire},
		{name: "pexpire", arity: -3, flags: flagWrite | flagFast, first: 1, last: 1, step: 1, group: group, since: "2.6.0", summary: "Sets when a key expires, in milliseconds from now.", prepare: prepareExpire, write: expire},
		{name: "persist", arity: 2, flags: flagWrite | flagFast, first: 1, last: 1, step: 1, group: group, since: "2.2.0", summary: "Makes a key not expire.", write: persist},
		{name: "ttl", arity: 2, flags: flagReadonly | flagFast, first: 1, last: 1, step: 1, group: group, since: "1.0.0", summary: "The time until a key expires, in seconds.", read: ttl},
		{name: "pttl", arity: 2, flags: flagReadonly | flagFast, first: 1, last: 1, step: 1, group: group, since: "2.6.0", summary: "The time until a key expires, in milliseconds.", read: pttl},
		{name: "type", arity: 2, flags: flagReadonly | flagFast, first: 1, last: 1, step: 1, group: group, since: "1.0.0", summary: "The type of a key's value.", read: typeOf},
	}
}

func stringCommands() []command {
	const group = "string"
	one := func(c command) command {
		c.first, c.last, c.step, c.group = 1, 1, 1, group
		return c
	}
	return []command{
		one(command{name: "get", arity: 2, flags: flagReadonly | flagFast | flagBulky, since: "1.0.0", summary: "The value of a key.", read: get}),
		one(command{name: "set", arity: -3, flags: flagWrite, since: "1.0.0", summary: "Sets a key, under conditions, with an expiry.", prepare: prepareSet, write: set}),
		one(command{name: "setnx", arity: 3, flags: flagWrite | flagFast, since: "1.0.0", summary: "Sets a key that does not exist.", prepare: prepareKey, write: setnx}),
		one(command{name: "setex", arity: 4, flags: flagWrite, since: "2.0.0", summary: "Sets a key that expires, in seconds from now.", prepare: prepareSetex, write: setex}),
		one(command{name: "psetex", arity: 4, flags: flagWrite, since: "2.6.0", summary: "Sets a key that expires, in milliseconds from now.", prepare: prepareSetex, write: setex}),
		one(command{name: "getdel", arity: 2, flags: flagWrite | flagFast | flagBulky, since: "6.2.0", summary: "The value of a key, which is deleted.", write: getdel}),
		one(command{name: "append", arity: 3, flags: flagWrite | flagFast, since: "2.0.0", summary: "Appends to a value.", prepare: prepareKey, write: appendTo}),
		one(command{name: "strlen", arity: 2, flags: flagReadonly | flagFast, since: "2.2.0", summary: "The length of a value.", read: strlen}),
		one(command{name: "incr", arity: 2, flags: flagWrite | flagFast, since: "1.0.0", summary: "Adds 1 to a number.", prepare: prepareIncr, write: incr}),
		one(command{name: "decr", arity: 2, flags: flagWrite | flagFast, since: "1.0.0", summary: "Subtracts 1 from a number.", prepare: prepareDecr, write: incr}),
		one(command{name: "incrby", arity: 3, flags: flagWrite | flagFast, since: "1.0.0", summary: "Adds to a number.", prepare: prepareIncrBy, write: incr}),
		one(command{name: "decrby", arity: 3, flags: flagWrite | flagFast, since: "1.0.0", summary: "Subtracts from a number.", prepare: prepareDecrBy, write: incr}),
		{name: "mget", arity: -2, flags: flagReadonly | flagFast, first: 1, last: -1, step: 1, group: group, since: "1.0.0", summary: "The values of keys.", read: mget, merge: mergeValues},
		{name: "mset", arity: -3, flags: flagWrite, first: 1, last: -1, step: 2, group: group, since: "1.0.1", summary: "Sets keys.", prepare: prepareMset, write: mset, merge: mergeOK},
	}
}

func hashCommands() []command {
	one := func(c command) command {
		c.first, c.last, c.step, c.group = 1, 1, 1, "hash"
		return c
	}
	return []command{
		one(command{name: "hset", arity: -4, flags: flagWrite | flagFast, since: "2.0.0", summary: "Sets fields.", prepare: prepareHset, write: hset}),
		one(command{name: "hmset", arity: -4, flags: flagWrite | flagFast, since: "2.0.0", summary: "Sets fields.", prepare: prepareHset, write: hset}),
		one(command{name: "hsetnx", arity: 4, flags: flagWrite | flagFast, since: "2.0.0", summary: "Sets a field that does not exist.", prepare: prepareHset, write: hsetnx}),
		one(command{name: "hget", arity: 3, flags: flagReadonly | flagFast | flagBulky, since: "2.0.0", summary: "The value of a field.", read: hget}),
		one(command{name: "hmget", arity: -3, flags: flagReadonly | flagFast, since: "2.0.0", summary: "The values of fields.", view: hmget}),
		one(command{name: "hdel", arity: -3, flags: flagWrite | flagFast, since: "2.0.0", summary: "Deletes fields.", write: hdel}),
		one(command{name: "hlen", arity: 2, flags: flagReadonly | flagFast, since: "2.0.0", summary: "The number of fields.", read: hlen}),
		one(command{name: "hexists", arity: 3, flags: flagReadonly | flagFast, since: "2.0.0", summary: "Whether a field exists.", read: hexists}),
		one(command{name: "hincrby", arity: 4, flags: flagWrite | flagFast, since: "2.0.0", summary: "Adds to a field's number.", prepare: prepareHincrby, write: hincrby}),
		one(command{name: "hgetall", arity: 2, flags: flagReadonly, since: "2.0.0", summary: "All fields and their values.", view: hgetall}),
		one(command{name: "hkeys", arity: 2, flags: flagReadonly, since: "2.0.0", summary: "All fields.", view: hkeys}),
		one(command{name: "hvals", arity: 2, flags: flagReadonly, since: "2.0.0", summary: "The values of all fields.", view: hvals}),
		one(command{name: "hscan", arity: -3, flags: flagReadonly, since: "2.8.0", summary: "Iterates over fields.", prepare: prepareHscan, view: hscan}),
	}
}
