package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of ServerOptions and ClientOptions.
const (
	DefaultMaxMessageBytes  = 64 << 20
	DefaultMaxConnections   = 256
	DefaultMaxStreams       = 1024
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultDialTimeout      = 5 * time.Second
	DefaultKeepaliveTime    = 10 * time.Second
	DefaultKeepaliveTimeout = 10 * time.Second
)

// minKeepaliveTime is the smallest interval between pings that grpc lets a client use, and so the strictest a server may demand.
const minKeepaliveTime = 10 * time.Second

// Flow-control windows in bytes: how much of one stream, and of one connection, is in flight before the reader has taken it.
const (
	streamWindow     = 1 << 20
	connectionWindow = 8 << 20
)

// MessageOverhead is more than a message takes beside the batch that it carries, in bytes: ServerOptions.MaxMessageBytes must be that
// much above the largest batch.
const MessageOverhead = 64 << 10

// maxHeaderBytes bounds the headers of one call.
const maxHeaderBytes = 16 << 10

// Identity says who a node is.
type Identity struct {
	ClusterID  uint64
	NodeID     uint64
	Partitions uint32
	// Version is the software's version, for people.
	Version string
}

// ServerOptions configures a Server.
type ServerOptions struct {
	// Listener is where connections come from; required. The server closes it.
	Listener net.Listener
	// Identity is what Describe answers.
	Identity Identity
	// Handlers are the services beside Describe.
	Handlers Handlers
	// TLS turns on transport security; nil means plain TCP. See LoadTLS for mutual authentication.
	TLS *tls.Config
	// MaxMessageBytes bounds a received message. Default 64 MiB, at least 1 KiB.
	MaxMessageBytes int
	// MaxConnections bounds open connections. Default 256.
	MaxConnections int
	// MaxStreams bounds concurrent calls on one connection. Default 1024.
	MaxStreams uint32
	// HandshakeTimeout bounds the time from accepting a connection to its first use. Default 10 s.
	HandshakeTimeout time.Duration
	// KeepaliveTime is how long a connection may be silent before the server probes it. Default and minimum 10 s.
	KeepaliveTime time.Duration
	// KeepaliveTimeout is how long the probe's answer may take before the connection is closed. Default 10 s.
	KeepaliveTimeout time.Duration
	// Logger receives one line per event; nil discards.
	Logger *slog.Logger
	// Registerer receives the metrics; nil means they are not registered.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills the fields that are zero.
func (o *ServerOptions) EnsureDefaults() {
	o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, DefaultMaxMessageBytes)
	o.MaxConnections = cmp.Or(o.MaxConnections, DefaultMaxConnections)
	o.MaxStreams = cmp.Or(o.MaxStreams, DefaultMaxStreams)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, DefaultHandshakeTimeout)
	o.KeepaliveTime = cmp.Or(o.KeepaliveTime, DefaultKeepaliveTime)
	o.KeepaliveTimeout = cmp.Or(o.KeepaliveTimeout, DefaultKeepaliveTimeout)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports the first field that cannot be used, by name.
func (o *ServerOptions) Validate() error {
	if o.Listener == nil {
		return errors.New("peer: ServerOptions.Listener is missing")
	}
	if err := validateMessageBytes("ServerOptions", o.MaxMessageBytes); err != nil {
		return err
	}
	if o.MaxConnections < 1 {
		return fmt.Errorf("peer: ServerOptions.MaxConnections is %d, must be at least 1", o.MaxConnections)
	}
	if o.HandshakeTimeout < 0 {
		return fmt.Errorf("peer: ServerOptions.HandshakeTimeout is %s, must be positive", o.HandshakeTimeout)
	}
	return validateKeepalive("ServerOptions", o.KeepaliveTime, o.KeepaliveTimeout)
}

// ClientOptions configures a Client.
type ClientOptions struct {
	// TLS turns on transport security; nil means plain TCP. See LoadTLS for mutual authentication.
	TLS *tls.Config
	// MaxMessageBytes bounds a received message. Default 64 MiB, at least 1 KiB.
	MaxMessageBytes int
	// DialTimeout bounds making a connection, handshake included. Default 5 s.
	DialTimeout time.Duration
	// KeepaliveTime is how long a connection with open streams may be silent before the client probes it. Default and minimum 10 s.
	KeepaliveTime time.Duration
	// KeepaliveTimeout is how long the probe's answer may take before the connection is given up. Default 10 s.
	KeepaliveTimeout time.Duration
	// Dial opens the transport to an address; nil means TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// EnsureDefaults fills the fields that are zero.
func (o *ClientOptions) EnsureDefaults() {
	o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, DefaultMaxMessageBytes)
	o.DialTimeout = cmp.Or(o.DialTimeout, DefaultDialTimeout)
	o.KeepaliveTime = cmp.Or(o.KeepaliveTime, DefaultKeepaliveTime)
	o.KeepaliveTimeout = cmp.Or(o.KeepaliveTimeout, DefaultKeepaliveTimeout)
	if o.Dial == nil {
		dialer := &net.Dialer{}
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
}

// Validate reports the first field that cannot be used, by name.
func (o *ClientOptions) Validate() error {
	if err := validateMessageBytes("ClientOptions", o.MaxMessageBytes); err != nil {
		return err
	}
	if o.DialTimeout < 0 {
		return fmt.Errorf("peer: ClientOptions.DialTimeout is %s, must be positive", o.DialTimeout)
	}
	return validateKeepalive("ClientOptions", o.KeepaliveTime, o.KeepaliveTimeout)
}

func validateMessageBytes(owner string, n int) error {
	if n < 1<<10 {
		return fmt.Errorf("peer: %s.MaxMessageBytes is %d, must be at least 1024", owner, n)
	}
	return nil
}

func validateKeepalive(owner string, interval, timeout time.Duration) error {
	if interval < minKeepaliveTime {
		return fmt.Errorf("peer: %s.KeepaliveTime is %s, must be at least %s", owner, interval, minKeepaliveTime)
	}
	if timeout <= 0 {
		return fmt.Errorf("peer: %s.KeepaliveTimeout is %s, must be positive", owner, timeout)
	}
	return nil
}
