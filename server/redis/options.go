package redis

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/server/resp"
)

// InfoField is one line of an INFO section.
type InfoField struct{ Name, Value string }

// Options configure a Server. Store and one of Addr and Listener must be given.
type Options struct {
	// Addr is the TCP address to listen on, host:port. Port 0 takes a free port.
	Addr string
	// Listener, when it is not nil, is an address that the caller has bound already; Addr is then not used. The server closes it.
	Listener net.Listener
	// Store is the keyspace to serve. It may come later, with Open, when Loading is given.
	Store Store
	// Loading says what is being waited for while there is no Store yet. Until then clients are accepted, and commands that Redis
	// refuses while it loads are refused with LOADING and this text.
	Loading func() string
	// Password, when it is not empty, must be given by every client (AUTH) before anything else. The user is "default".
	Password string
	// MaxClients is the greatest number of connections; further ones are told so and closed. Default 10000.
	MaxClients int
	// Limits bound one request.
	Limits resp.Limits
	// MaxKeyBytes and MaxFieldValueBytes are what the store can hold: the longest key (with a hash's field, both together), and the
	// longest value of a hash's field. Commands beyond them are refused before they take effect in part. They and
	// Limits.MaxBulkBytes must not exceed the store's own limits. Defaults 60 KiB and 768 KiB.
	MaxKeyBytes        int
	MaxFieldValueBytes int
	// MaxMutationBytes is what one command may write to one partition of the store, as the store encodes it. A command over many keys
	// beyond it is refused before it takes effect in part. It must not exceed the store's own limit. Default 16 MiB +
	// Limits.MaxBulkBytes.
	MaxMutationBytes int
	// MaxReplyBytes is the longest reply to one command, and what the replies a connection waits for may take together. A command
	// whose reply would be longer fails. Default 128 MiB; at least twice Limits.MaxBulkBytes.
	MaxReplyBytes int
	// MaxBufferBytes bounds the memory of all connections' buffers together, beyond a few KiB each. A connection that needs more is
	// closed. Default 1 GiB.
	MaxBufferBytes int64
	// MaxPipeline is how many commands of one connection may be under way at a time. Default 1024.
	MaxPipeline int
	// WriteTimeout is how long a client may take to accept replies before its connection is closed. Default 30 s.
	WriteTimeout time.Duration
	// RequestTimeout is how long a client may take to send a request it has begun. Default 60 s.
	RequestTimeout time.Duration
	// IdleTimeout closes connections that send nothing for so long. Default 0: never.
	IdleTimeout time.Duration
	// BusyTimeout is how long a write waits for room in a partition's queue before it is refused. Default 5 s.
	BusyTimeout time.Duration
	// WriteGate, when it is not nil, is called before every command that may write, with each partition that it concerns; with an error the
	// command is refused as a whole with the error's text, which may begin with a code of its own in capitals. It must be cheap and safe
	// for concurrent use.
	WriteGate func(partition int) error
	// DiskFull, when it is not nil, describes the disk when the store has refused a write for want of space. Those writes are answered
	// with OOM and this text.
	DiskFull func() string
	// Info, when it is not nil, adds fields to a section of INFO ("server", "persistence", "replication" …).
	Info func(section string) []InfoField
	// Version is what INFO gives as replicanode_version.
	Version string
	// Logger receives one line per event; nil: none.
	Logger *slog.Logger
	// Registerer receives the metrics; nil: none.
	Registerer prometheus.Registerer
}

// EnsureDefaults replaces zero fields by their defaults.
func (o *Options) EnsureDefaults() {
	o.Limits.EnsureDefaults()
	o.MaxClients = cmp.Or(o.MaxClients, 10_000)
	o.MaxKeyBytes = cmp.Or(o.MaxKeyBytes, 60<<10)
	o.MaxFieldValueBytes = cmp.Or(o.MaxFieldValueBytes, 768<<10)
	o.MaxMutationBytes = cmp.Or(o.MaxMutationBytes, 16<<20+o.Limits.MaxBulkBytes)
	o.MaxReplyBytes = cmp.Or(o.MaxReplyBytes, max(128<<20, 2*o.Limits.MaxBulkBytes))
	o.MaxBufferBytes = cmp.Or(o.MaxBufferBytes, 1<<30)
	o.MaxPipeline = cmp.Or(o.MaxPipeline, 1024)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	o.RequestTimeout = cmp.Or(o.RequestTimeout, 60*time.Second)
	o.BusyTimeout = cmp.Or(o.BusyTimeout, 5*time.Second)
	o.Version = cmp.Or(o.Version, "0.0.0")
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports the first option that cannot work.
func (o *Options) Validate() error {
	if o.Store == nil && o.Loading == nil {
		return errors.New("redis server: no store, and no word of when it comes")
	}
	if o.Listener != nil {
		o.Addr = o.Listener.Addr().String()
	}
	if _, _, err := net.SplitHostPort(o.Addr); err != nil {
		return fmt.Errorf("redis server: address %q: %w", o.Addr, err)
	}
	if err := o.Limits.Validate(); err != nil {
		return fmt.Errorf("redis server: %w", err)
	}
	switch {
	case o.MaxClients < 1 || o.MaxClients > 1<<20:
		return fmt.Errorf("redis server: max clients %d: must be between 1 and %d", o.MaxClients, 1<<20)
	case o.MaxKeyBytes < 1 || o.MaxFieldValueBytes < 1 || o.MaxMutationBytes < 1:
		return errors.New("redis server: the limits of keys and fields, and of mutations, must be positive")
	case o.MaxReplyBytes < 2*o.Limits.MaxBulkBytes || o.MaxReplyBytes > 1<<30:
		return fmt.Errorf("redis server: max reply bytes %d: must be between twice the longest argument (%d) and %d", o.MaxReplyBytes, 2*o.Limits.MaxBulkBytes, 1<<30)
	case o.MaxBufferBytes < int64(o.Limits.MaxRequestBytes):
		return fmt.Errorf("redis server: max buffer bytes %d: must be at least the longest request (%d)", o.MaxBufferBytes, o.Limits.MaxRequestBytes)
	case o.MaxPipeline < 1 || o.MaxPipeline > 1<<16:
		return fmt.Errorf("redis server: max pipeline %d: must be between 1 and %d", o.MaxPipeline, 1<<16)
	case o.WriteTimeout < 0 || o.RequestTimeout < 0 || o.IdleTimeout < 0 || o.BusyTimeout < 0:
		return errors.New("redis server: timeouts must not be negative")
	}
	return nil
}
