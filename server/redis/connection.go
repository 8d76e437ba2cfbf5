package redis

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"sort"
	"strings"
	"time"
)

func ping(c *conn, args [][]byte) {
	switch len(args) {
	case 1:
		c.reply().Status("PONG")
	case 2:
		c.reply().Bulk(args[1])
	default:
		c.refuse("ERR wrong number of arguments for 'ping' command")
	}
}

func echo(c *conn, args [][]byte) { c.reply().Bulk(args[1]) }

func selectDB(c *conn, args [][]byte) {
	switch n, ok := parseInt(args[1]); {
	case !ok:
		c.refuse(errNotInteger)
	case n != 0:
		c.refuse("ERR DB index is out of range")
	default:
		c.reply().OK()
	}
}

func quit(c *conn, _ [][]byte) {
	c.reply().OK()
	c.closing = true
}

func reset(c *conn, _ [][]byte) {
	c.setAuthed(c.server.opts.Password == "")
	c.setProto(2)
	c.setName("")
	c.reply().Status("RESET")
}

const wrongPass = "WRONGPASS invalid username-password pair or user is disabled."

func auth(c *conn, args [][]byte) {
	user, password := []byte("default"), args[1]
	switch len(args) {
	case 2:
		if c.server.opts.Password == "" {
			c.refuse("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
			return
		}
	case 3:
		user, password = args[1], args[2]
	default:
		c.refuse(errSyntax)
		return
	}
	if !c.authenticate(user, password) {
		c.refuse(wrongPass)
		return
	}
	c.reply().OK()
}

// authenticate checks a password, in a time that does not depend on how much of it is right. Without a password set, the default user
// may give any.
func (c *conn) authenticate(user, password []byte) bool {
	given := sha256.Sum256(password)
	right := subtle.ConstantTimeCompare(given[:], c.server.password[:]) == 1
	if string(user) != "default" || !right && c.server.opts.Password != "" {
		c.server.metrics.refused[refusedAuth].Inc()
		c.log("wrong password")
		return false
	}
	c.setAuthed(true)
	return true
}

func (c *conn) setAuthed(authed bool) {
	c.authed = authed
	c.rd.SetLimits(c.server.limits(authed))
}

func (c *conn) setProto(version int) {
	c.out.V3 = version == 3
	c.infoMu.Lock()
	c.proto = version
	c.infoMu.Unlock()
}

func (c *conn) setName(name string) {
	c.infoMu.Lock()
	c.name = name
	c.infoMu.Unlock()
}

// validName reports whether a client's name can be shown in a list: printable, without spaces.
func validName(name []byte) bool {
	for _, b := range name {
		if b < '!' || b > '~' {
			return false
		}
	}
	return len(name) <= 1024
}

const badName = "ERR Client names cannot contain spaces, newlines or special characters."

// hello implements HELLO [2|3 [AUTH user password] [SETNAME name]].
func hello(c *conn, args [][]byte) {
	version := c.proto
	if len(args) > 1 {
		n, ok := parseInt(args[1])
		if !ok {
			c.refuse("ERR Protocol version is not an integer or out of range")
			return
		}
		if n != 2 && n != 3 {
			c.refuse("NOPROTO unsupported protocol version")
			return
		}
		version = int(n)
	}
	var user, password, name []byte
	for i := 2; i < len(args); i++ {
		switch left := len(args) - i - 1; {
		case is(args[i], "AUTH") && left >= 2:
			user, password = args[i+1], args[i+2]
			i += 2
		case is(args[i], "SETNAME") && left >= 1:
			if name = args[i+1]; !validName(name) {
				c.refuse(badName)
				return
			}
			i++
		default:
			c.refuse(fmt.Sprintf("ERR Syntax error in HELLO option '%.128s'", args[i]))
			return
		}
	}
	if user != nil && !c.authenticate(user, password) {
		c.refuse(wrongPass)
		return
	}
	if !c.authed {
		c.refuse("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	c.setProto(version)
	if name != nil {
		c.setName(string(name))
	}
	w := c.reply()
	w.Map(7)
	w.BulkString("server")
	w.BulkString("redis")
	w.BulkString("version")
	w.BulkString(redisVersion)
	w.BulkString("proto")
	w.Int(int64(version))
	w.BulkString("id")
	w.Int(c.id)
	w.BulkString("mode")
	w.BulkString("standalone")
	w.BulkString("role")
	w.BulkString("master")
	w.BulkString("modules")
	w.Array(0)
}

// client implements the parts of CLIENT that client libraries and redis-cli use.
func client(c *conn, args [][]byte) {
	sub, n := args[1], len(args)
	switch {
	case is(sub, "ID") && n == 2:
		c.reply().Int(c.id)
	case is(sub, "GETNAME") && n == 2:
		if c.name == "" {
			c.reply().Null()
		} else {
			c.reply().BulkString(c.name)
		}
	case is(sub, "SETNAME") && n == 3:
		if !validName(args[2]) {
			c.refuse(badName)
			return
		}
		c.setName(string(args[2]))
		c.reply().OK()
	case is(sub, "SETINFO") && n == 4:
		if !is(args[2], "LIB-NAME") && !is(args[2], "LIB-VER") {
			c.refuse(fmt.Sprintf("ERR Unrecognized option '%.128s'", args[2]))
			return
		}
		c.reply().OK()
	case is(sub, "INFO") && n == 2:
		c.reply().Text(c.describe(time.Now()))
	case is(sub, "LIST"):
		c.clientList(args[2:])
	case (is(sub, "NO-EVICT") || is(sub, "NO-TOUCH")) && n == 3:
		if !is(args[2], "ON") && !is(args[2], "OFF") {
			c.refuse(errSyntax)
			return
		}
		c.reply().OK()
	case is(sub, "GETREDIR") && n == 2:
		c.reply().Int(-1)
	case is(sub, "HELP") && n == 2:
		c.help("CLIENT",
			"GETNAME", "Return the name of the current connection.",
			"ID", "Return the ID of the current connection.",
			"INFO", "Return information about the current client connection.",
			"LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <id> ...]", "Return information about client connections.",
			"NO-EVICT (ON|OFF)", "Accepted without effect: clients are not evicted.",
			"NO-TOUCH (ON|OFF)", "Accepted without effect: reads do not change keys.",
			"SETINFO <option> <value>", "Accepted without effect.",
			"SETNAME <name>", "Assign a name to the current connection.")
	default:
		c.unknownSubcommand("client", sub, "ID", "GETNAME", "SETNAME", "SETINFO", "INFO", "NO-EVICT", "NO-TOUCH", "GETREDIR", "HELP")
	}
}

// unknownSubcommand answers a subcommand that is none of known, or was given too many or too few arguments.
func (c *conn) unknownSubcommand(cmd string, sub []byte, known ...string) {
	for _, name := range known {
		if is(sub, name) {
			c.refuse("ERR wrong number of arguments for '" + cmd + "|" + strings.ToLower(name) + "' command")
			return
		}
	}
	c.refuse(fmt.Sprintf("ERR unknown subcommand '%.128s'. Try %s HELP.", sub, strings.ToUpper(cmd)))
}

// describe is the connection's line in CLIENT LIST.
func (c *conn) describe(now time.Time) string {
	c.infoMu.Lock()
	defer c.infoMu.Unlock()
	return fmt.Sprintf("id=%d addr=%s laddr=%s name=%s age=%d flags=N db=0 user=default resp=%d\n",
		c.id, c.remote, c.nc.LocalAddr(), c.name, int64(now.Sub(c.since).Seconds()), c.proto)
}

// clientList implements CLIENT LIST [TYPE type] [ID id …].
func (c *conn) clientList(args [][]byte) {
	wanted := func(*conn) bool { return true }
	switch {
	case len(args) == 0:
	case len(args) == 2 && is(args[0], "TYPE"):
		switch {
		case is(args[1], "NORMAL"):
		case is(args[1], "MASTER"), is(args[1], "REPLICA"), is(args[1], "SLAVE"), is(args[1], "PUBSUB"):
			wanted = func(*conn) bool { return false }
		default:
			c.refuse(fmt.Sprintf("ERR Unknown client type '%.128s'", args[1]))
			return
		}
	case len(args) >= 2 && is(args[0], "ID"):
		ids := map[int64]bool{}
		for _, arg := range args[1:] {
			id, ok := parseInt(arg)
			if !ok {
				c.refuse("ERR Invalid client ID")
				return
			}
			ids[id] = true
		}
		wanted = func(c *conn) bool { return ids[c.id] }
	default:
		c.refuse(errSyntax)
		return
	}
	c.reply().Text(c.server.describeClients(wanted))
}

// describeClients has a line for each connection that is wanted, the oldest first.
func (s *Server) describeClients(wanted func(*conn) bool) string {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	sort.Slice(conns, func(i, j int) bool { return conns[i].id < conns[j].id })
	var b strings.Builder
	now := time.Now()
	for _, c := range conns {
		if wanted(c) {
			b.WriteString(c.describe(now))
		}
	}
	return b.String()
}
