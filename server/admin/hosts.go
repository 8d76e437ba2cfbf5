package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// hosts are the names under which a server may be called.
type hosts struct{ loopback bool }

func hostsOf(addr net.Addr) hosts {
	tcp, ok := addr.(*net.TCPAddr)
	return hosts{loopback: ok && tcp.IP.IsLoopback()}
}

// check refuses what a browser sends on behalf of another site. Beyond loopback a node has a password, which a browser does not give to
// a site that only pretends to be the node, so any name may lead to it.
func (h hosts) check(r *http.Request) error {
	if h.loopback && !isLocal(r.Host) {
		return &Error{Status: http.StatusForbidden, Message: fmt.Sprintf("host %q may not lead to this node, which listens on loopback: use 127.0.0.1 or localhost", r.Host)}
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
		return &Error{Status: http.StatusForbidden, Message: fmt.Sprintf("origin %q may not call this node", origin)}
	}
	return nil
}

// isLocal reports whether the Host of a request means this machine whatever a name server says.
func isLocal(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
