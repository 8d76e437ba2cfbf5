package node

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"replicanode/duplication"
)

func (o *Options) validateRemotes() error {
	seen := map[string]bool{}
	for _, r := range o.DuplicateTo {
		if seen[r.Name] {
			return &FlagError{Flag: "duplicate-to", Value: r.Name, Reason: "this remote is named twice; give all its addresses in one flag, separated by commas"}
		}
		seen[r.Name] = true
		for _, addr := range r.Addresses {
			if samePlace(addr, o.Peer) {
				return &FlagError{Flag: "duplicate-to", Value: r.Name + "=" + addr, Reason: fmt.Sprintf("is this node's own --peer %s; give the other node's peer address", o.Peer)}
			}
		}
	}
	return nil
}

// samePlace reports whether a connection to the remote address would reach what listens at own, as far as that can be told without
// asking the network.
func samePlace(remote, own string) bool {
	remoteHost, remotePort, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	ownHost, ownPort, err := net.SplitHostPort(own)
	if err != nil || remotePort != ownPort || ownPort == "0" {
		return false
	}
	if remoteHost == ownHost {
		return true
	}
	ip, listening := localIP(remoteHost), localIP(ownHost)
	if ip == nil {
		return false
	}
	if listening != nil && !listening.IsUnspecified() {
		return ip.Equal(listening)
	}
	return ip.IsLoopback() || ip.IsUnspecified() || isInterface(ip)
}

// localIP is the address that a host without a name stands for: none given means every interface.
func localIP(host string) net.IP {
	switch host {
	case "localhost":
		return net.IPv4(127, 0, 0, 1)
	case "":
		return net.IPv4zero
	}
	return net.ParseIP(host)
}

// isInterface reports whether ip is an address of this machine.
func isInterface(ip net.IP) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}

// ParseRemote reads "name=host:port[,host:port…]".
func ParseRemote(s string) (duplication.Remote, error) {
	fail := func(reason string) (duplication.Remote, error) {
		return duplication.Remote{}, &FlagError{Flag: "duplicate-to", Value: s, Reason: reason}
	}
	name, list, ok := strings.Cut(s, "=")
	if !ok || name == "" || list == "" {
		return fail("must be name=host:port, for example backup=127.0.0.1:7381")
	}
	if len(name) > 64 || strings.IndexFunc(name, notInName) >= 0 {
		return fail("a remote's name has 1 to 64 letters, digits, '-', '_' or '.'")
	}
	r := duplication.Remote{Name: name}
	for _, addr := range strings.Split(list, ",") {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" {
			return fail(fmt.Sprintf("%q is not host:port", addr))
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fail(fmt.Sprintf("port %q is not a number from 1 to 65535", port))
		}
		r.Addresses = append(r.Addresses, addr)
	}
	return r, nil
}

// SetFailModes reads "[name=]slow" and "[name=]skip" into remotes; without a name all of them are meant, and the last word counts.
func SetFailModes(remotes []duplication.Remote, modes []string) error {
	for _, s := range modes {
		fail := func(reason string) error { return &FlagError{Flag: "dup-fail-mode", Value: s, Reason: reason} }
		name, word, named := strings.Cut(s, "=")
		if !named {
			word = s
		}
		mode, err := duplication.ParseFailMode(word)
		if err != nil {
			return fail("must be slow or skip, or NAME=slow or NAME=skip for one remote")
		}
		found := false
		for i := range remotes {
			if !named || remotes[i].Name == name {
				remotes[i].FailMode, found = mode, true
			}
		}
		if named && !found {
			return fail("no --duplicate-to has this name")
		}
	}
	return nil
}

func notInName(c rune) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		return false
	}
	return true
}
