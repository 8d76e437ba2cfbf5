package redis

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicanode/server/resp"
)

// redisVersion is the version of Redis whose commands and error texts these are. Clients choose features by it.
const redisVersion = "7.0.15"

// commandCommand implements COMMAND and its subcommands.
func commandCommand(c *conn, args [][]byte) {
	t := c.server.table
	if len(args) == 1 {
		w := c.reply()
		w.Array(len(t.list))
		for i := range t.list {
			t.list[i].describe(w)
		}
		return
	}
	switch sub := args[1]; {
	case is(sub, "COUNT") && len(args) == 2:
		c.reply().Int(int64(len(t.list)))
	case is(sub, "INFO"):
		c.commandInfo(args[2:])
	case is(sub, "DOCS"):
		c.commandDocs(args[2:])
	case is(sub, "LIST"):
		c.commandList(args)
	case is(sub, "GETKEYS") && len(args) > 3:
		c.commandKeys(args[2:])
	case is(sub, "HELP") && len(args) == 2:
		c.help("COMMAND",
			"(no subcommand)", "Return details about all commands.",
			"COUNT", "Return the number of commands.",
			"DOCS [<command-name> ...]", "Return documentation about commands.",
			"GETKEYS <full-command>", "Return the keys in a command.",
			"INFO [<command-name> ...]", "Return details about commands.",
			"LIST [FILTERBY (ACLCAT <category>|MODULE <name>|PATTERN <pattern>)]", "Return the names of commands.")
	default:
		c.unknownSubcommand("command", sub, "COUNT", "GETKEYS", "HELP")
	}
}

// describe writes a command as COMMAND does: name, arity, flags, first, last and step of the keys, categories, tips, key
// specifications, subcommands.
func (cmd *command) describe(w *resp.Reply) {
	w.Array(10)
	w.BulkString(cmd.name)
	w.Int(int64(cmd.arity))
	var names []string
	for _, f := range flagNames {
		if cmd.flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	w.Set(len(names))
	for _, name := range names {
		w.Status(name)
	}
	w.Int(int64(cmd.first))
	w.Int(int64(cmd.last))
	w.Int(int64(cmd.step))
	categories := cmd.categories()
	w.Set(len(categories))
	for _, name := range categories {
		w.Status("@" + name)
	}
	w.Array(0)
	w.Array(0)
	w.Array(0)
}

// categories are those of Redis' access control lists that the command is in.
func (cmd *command) categories() []string {
	var names []string
	switch {
	case cmd.flags&flagWrite != 0:
		names = append(names, "write")
	case cmd.flags&flagReadonly != 0:
		names = append(names, "read")
	}
	switch cmd.group {
	case "generic":
		names = append(names, "keyspace")
	case "server":
		if cmd.flags&flagAdmin != 0 {
			names = append(names, "admin")
		}
	default:
		names = append(names, cmd.group)
	}
	if cmd.flags&flagFast != 0 {
		return append(names, "fast")
	}
	return append(names, "slow")
}

// help answers the subcommand HELP as Redis does: a line for each form and one for what it does.
func (c *conn) help(cmd string, forms ...string) {
	w := c.reply()
	w.Array(len(forms) + 3)
	w.Status(cmd + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
	for i, line := range forms {
		if i%2 == 1 {
			line = "    " + line
		}
		w.Status(line)
	}
	w.Status("HELP")
	w.Status("    Print this help.")
}

// mostNames bounds the commands that COMMAND INFO and DOCS describe at once: a request of many short names would otherwise be answered
// with many times its length, which nothing else bounds.
const mostNames = 1000

// isLong refuses more than mostNames names.
func (c *conn) isLong(names [][]byte) bool {
	if len(names) <= mostNames {
		return false
	}
	c.refuse("ERR at most " + strconv.Itoa(mostNames) + " commands are described at once")
	return true
}

func (c *conn) commandInfo(names [][]byte) {
	if c.isLong(names) {
		return
	}
	w := c.reply()
	if len(names) == 0 {
		w.Array(len(c.server.table.list))
		for i := range c.server.table.list {
			c.server.table.list[i].describe(w)
		}
		return
	}
	w.Array(len(names))
	for _, name := range names {
		if cmd := c.server.table.find(name); cmd != nil {
			cmd.describe(w)
		} else {
			w.Null()
		}
	}
}

func (c *conn) commandDocs(names [][]byte) {
	if c.isLong(names) {
		return
	}
	var list []*command
	for _, name := range names {
		if cmd := c.server.table.find(name); cmd != nil {
			list = append(list, cmd)
		}
	}
	if len(names) == 0 {
		for i := range c.server.table.list {
			list = append(list, &c.server.table.list[i])
		}
	}
	w := c.reply()
	w.Map(len(list))
	for _, cmd := range list {
		w.BulkString(cmd.name)
		w.Map(3)
		w.BulkString("summary")
		w.BulkString(cmd.summary)
		w.BulkString("since")
		w.BulkString(cmd.since)
		w.BulkString("group")
		w.BulkString(cmd.group)
	}
}

// commandList implements COMMAND LIST [FILTERBY PATTERN|ACLCAT|MODULE value].
func (c *conn) commandList(args [][]byte) {
	wanted := func(*command) bool { return true }
	switch filter := len(args) == 5 && is(args[2], "FILTERBY"); {
	case filter && is(args[3], "PATTERN"):
		wanted = func(cmd *command) bool { return match(args[4], []byte(cmd.name)) }
	case filter && is(args[3], "ACLCAT"):
		wanted = func(cmd *command) bool {
			return slices.ContainsFunc(cmd.categories(), func(name string) bool { return is(args[4], strings.ToUpper(name)) })
		}
	case filter && is(args[3], "MODULE"):
		wanted = func(*command) bool { return false }
	case len(args) != 2:
		c.refuse(errSyntax)
		return
	}
	var names []string
	for i := range c.server.table.list {
		if cmd := &c.server.table.list[i]; wanted(cmd) {
			names = append(names, cmd.name)
		}
	}
	w := c.reply()
	w.Array(len(names))
	for _, name := range names {
		w.BulkString(name)
	}
}

func (c *conn) commandKeys(args [][]byte) {
	cmd := c.server.table.find(args[0])
	switch {
	case cmd == nil:
		c.refuse("ERR Invalid command specified")
		return
	case !cmd.arityFits(len(args)):
		c.refuse("ERR Invalid number of arguments specified for command")
		return
	case cmd.first == 0:
		c.refuse("ERR The command has no key arguments")
		return
	}
	last := cmd.last
	if last < 0 {
		last += len(args)
	}
	var keys [][]byte
	for i := cmd.first; i <= last; i += cmd.step {
		keys = append(keys, args[i])
	}
	w := c.reply()
	w.Array(len(keys))
	for _, key := range keys {
		w.Bulk(key)
	}
}

// config implements CONFIG GET for the settings that clients and tools ask for, under Redis' names.
func config(c *conn, args [][]byte) {
	switch {
	case is(args[1], "GET") && len(args) > 2:
	case is(args[1], "HELP") && len(args) == 2:
		c.help("CONFIG", "GET <pattern> [<pattern> ...]", "Return settings matching the glob-like <pattern>s and their values.")
		return
	case is(args[1], "SET") && len(args) > 3:
		c.refuse("ERR CONFIG SET is not supported: settings are given when the server starts")
		return
	default:
		c.unknownSubcommand("config", args[1], "GET", "SET", "HELP")
		return
	}
	var found []InfoField
	for _, setting := range c.server.settings() {
		for _, pattern := range args[2:] {
			if match([]byte(strings.ToLower(string(pattern))), []byte(setting.Name)) {
				found = append(found, setting)
				break
			}
		}
	}
	w := c.reply()
	w.Map(len(found))
	for _, f := range found {
		w.BulkString(f.Name)
		w.BulkString(f.Value)
	}
}

// settings are the options under the names that Redis has for them. Writes are always synced before they are acknowledged, which Redis
// calls an append-only file with appendfsync always.
func (s *Server) settings() []InfoField {
	o := &s.opts
	host, port, _ := net.SplitHostPort(o.Addr)
	if addr, ok := s.Addr().(*net.TCPAddr); ok {
		port = strconv.Itoa(addr.Port)
	}
	return []InfoField{
		{"appendfsync", "always"},
		{"appendonly", "yes"},
		{"bind", host},
		{"client-query-buffer-limit", strconv.Itoa(o.Limits.MaxRequestBytes)},
		{"databases", "1"},
		{"maxclients", strconv.Itoa(o.MaxClients)},
		{"maxmemory", "0"},
		{"maxmemory-clients", strconv.FormatInt(o.MaxBufferBytes, 10)},
		{"maxmemory-policy", "noeviction"},
		{"port", port},
		{"proto-max-bulk-len", strconv.Itoa(o.Limits.MaxBulkBytes)},
		{"save", ""},
		{"timeout", strconv.Itoa(int(o.IdleTimeout.Seconds()))},
	}
}

// infoSections are INFO's sections in order.
var infoSections = []string{"server", "clients", "memory", "persistence", "stats", "replication", "keyspace"}

// info implements INFO [section …].
func info(c *conn, args [][]byte) {
	wanted := map[string]bool{}
	for _, arg := range args[1:] {
		wanted[strings.ToLower(string(arg))] = true
	}
	all := len(args) == 1 || wanted["default"] || wanted["all"] || wanted["everything"]
	var b strings.Builder
	for _, section := range infoSections {
		if !all && !wanted[section] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		fmt.Fprintf(&b, "# %s%s\r\n", strings.ToUpper(section[:1]), section[1:])
		fields := c.server.infoFields(section)
		if hook := c.server.opts.Info; hook != nil {
			fields = append(fields, hook(section)...)
		}
		for _, f := range fields {
			fmt.Fprintf(&b, "%s:%s\r\n", f.Name, f.Value)
		}
	}
	c.reply().Text(b.String())
}

// infoFields are the fields the server itself knows.
func (s *Server) infoFields(section string) []InfoField {
	integer := func(name string, n int64) InfoField { return InfoField{name, strconv.FormatInt(n, 10)} }
	switch section {
	case "server":
		port := int64(0)
		if addr, ok := s.Addr().(*net.TCPAddr); ok {
			port = int64(addr.Port)
		}
		up := time.Since(s.started)
		return []InfoField{
			{"redis_version", redisVersion}, {"redis_mode", "standalone"}, {"replicanode_version", s.opts.Version},
			{"os", runtime.GOOS + " " + runtime.GOARCH}, {"go_version", runtime.Version()},
			integer("arch_bits", strconv.IntSize), integer("process_id", int64(os.Getpid())), integer("tcp_port", port),
			integer("uptime_in_seconds", int64(up.Seconds())), integer("uptime_in_days", int64(up.Hours()/24)),
		}
	case "clients":
		return []InfoField{integer("connected_clients", int64(s.clients())), integer("maxclients", int64(s.opts.MaxClients))}
	case "memory":
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return []InfoField{
			integer("used_memory", int64(m.HeapAlloc)), integer("used_memory_rss", int64(m.Sys-m.HeapReleased)),
			integer("mem_clients_normal", s.budget.Used()), integer("maxmemory", 0), {"maxmemory_policy", "noeviction"},
		}
	case "persistence":
		loading := int64(1)
		if s.ready.Load() {
			loading = 0
		}
		return []InfoField{integer("loading", loading), integer("aof_enabled", 1)}
	case "stats":
		return []InfoField{
			integer("total_connections_received", s.metrics.connectionCount.Load()), integer("total_commands_processed", s.metrics.executed.Load()),
			integer("total_net_input_bytes", s.metrics.received.Load()), integer("total_net_output_bytes", s.metrics.sent.Load()),
			integer("rejected_connections", s.metrics.rejected.Load()), integer("write_p99_usec", s.WriteP99().Microseconds()),
		}
	case "replication":
		return []InfoField{{"role", "master"}, integer("connected_slaves", 0)}
	case "keyspace":
		if n := s.keys.count(s); n > 0 {
			return []InfoField{{"db0", fmt.Sprintf("keys=%d,expires=0,avg_ttl=0", n)}}
		}
	}
	return nil
}
