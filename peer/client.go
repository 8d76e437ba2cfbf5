package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"replicanode/peer/peerpb"
)

// ErrClosed is returned by the calls of a Client that has been closed.
var ErrClosed = errors.New("peer client is closed")

// ErrAddress is wrapped by the error of a call to something that is not host:port.
var ErrAddress = errors.New("not an address of the form host:port")

// DuplicateClientStream is the source's end of a duplication stream.
type DuplicateClientStream = grpc.BidiStreamingClient[peerpb.DuplicateRequest, peerpb.DuplicateResponse]

// Client speaks to other nodes. Its methods may be called from any goroutine.
type Client struct {
	o       ClientOptions
	options []grpc.DialOption

	calls sync.WaitGroup // open streams, each with a link to release

	mu     sync.Mutex
	closed bool
	links  map[string]*link   // by address: what new calls use
	all    map[*link]struct{} // also those that new calls do not use any more
}

// link is one connection and the number of calls that use it.
type link struct {
	address string
	conn    *grpc.ClientConn
	users   int
}

// NewClient checks the options; it dials nothing.
func NewClient(o ClientOptions) (*Client, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS)
	}
	// A connection that fails is closed and made anew by the next call, so grpc's own redialling must never come first.
	never := backoff.Config{BaseDelay: time.Hour, Multiplier: 1, MaxDelay: time.Hour}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(o.Dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: never, MinConnectTimeout: o.DialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: o.KeepaliveTime, Timeout: o.KeepaliveTimeout}),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(o.MaxMessageBytes)),
	}
	return &Client{o: o, options: options, links: make(map[string]*link), all: make(map[*link]struct{})}, nil
}

// Describe asks the node at address (host:port) who it is.
func (c *Client) Describe(ctx context.Context, address string) (Identity, error) {
	l, err := c.acquire(ctx, address)
	if err != nil {
		return Identity{}, err
	}
	defer c.release(l)
	resp, err := peerpb.NewNodeClient(l.conn).Describe(ctx, &peerpb.DescribeRequest{})
	if err != nil {
		return Identity{}, fmt.Errorf("describe %s: %w", address, Plain(err))
	}
	return Identity{ClusterID: resp.GetClusterId(), NodeID: resp.GetNodeId(), Partitions: resp.GetPartitions(), Version: resp.GetVersion()}, nil
}

// Duplicate opens a duplication stream to the node at address (host:port). The stream lives until ctx ends or one side ends it;
// the caller must end ctx when it has done with the stream.
func (c *Client) Duplicate(ctx context.Context, address string) (DuplicateClientStream, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.calls.Add(1)
	c.mu.Unlock()
	stream, err := c.duplicate(ctx, address)
	if err != nil {
		c.calls.Done()
	}
	return stream, err
}

func (c *Client) duplicate(ctx context.Context, address string) (DuplicateClientStream, error) {
	l, err := c.acquire(ctx, address)
	if err != nil {
		return nil, err
	}
	stream, err := peerpb.NewDuplicationClient(l.conn).Duplicate(ctx)
	if err != nil {
		c.release(l)
		return nil, fmt.Errorf("open duplication stream to %s: %w", address, Plain(err))
	}
	context.AfterFunc(stream.Context(), func() {
		defer c.calls.Done()
		c.release(l)
	})
	return stream, nil
}

// Close closes every connection; open streams end with an error. It may be called again.
func (c *Client) Close() error {
	c.mu.Lock()
	all := make([]*link, 0, len(c.all))
	for l := range c.all {
		all = append(all, l)
	}
	c.closed = true
	c.mu.Unlock()
	var errs []error
	for _, l := range all {
		if err := l.conn.Close(); err != nil && status.Code(err) != codes.Canceled {
			errs = append(errs, fmt.Errorf("close connection to %s: %w", l.address, err))
		}
	}
	c.calls.Wait()
	return errors.Join(errs...)
}

// acquire returns a connection to address that is ready to be used, or has just failed to become so: then the call made on it
// returns the reason.
func (c *Client) acquire(ctx context.Context, address string) (*link, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("%w: %q", ErrAddress, address)
	}
	l, err := c.link(address)
	if err != nil {
		return nil, err
	}
	dialing, cancel := context.WithTimeout(ctx, c.o.DialTimeout)
	defer cancel()
	for {
		state := l.conn.GetState()
		switch state {
		case connectivity.Ready:
			return l, nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			c.forget(l)
			return l, nil
		case connectivity.Idle:
			l.conn.Connect()
		}
		if !l.conn.WaitForStateChange(dialing, state) {
			c.release(l)
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("dial %s: %w", address, err)
			}
			return nil, fmt.Errorf("dial %s: not connected within %s", address, c.o.DialTimeout)
		}
	}
}

// link finds or makes the connection to address and counts the caller as its user.
func (c *Client) link(address string) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	l := c.links[address]
	if l == nil {
		conn, err := grpc.NewClient("passthrough:///"+address, c.options...)
		if err != nil {
			return nil, fmt.Errorf("prepare connection to %s: %w", address, err)
		}
		l = &link{address: address, conn: conn}
		c.links[address] = l
		c.all[l] = struct{}{}
	}
	l.users++
	return l, nil
}

// forget makes the next call to the link's address use a new connection. Those who use this one still may; the last closes it.
func (c *Client) forget(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links[l.address] == l {
		delete(c.links, l.address)
	}
}

// release counts one user less; the last one closes the connection.
func (c *Client) release(l *link) {
	c.mu.Lock()
	l.users--
	idle := l.users == 0
	if idle {
		delete(c.all, l)
		if c.links[l.address] == l {
			delete(c.links, l.address)
		}
	}
	c.mu.Unlock()
	if idle {
		// Nothing uses the connection: a failure to close it concerns nobody.
		_ = l.conn.Close()
	}
}
