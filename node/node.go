package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"replicanode/checkpoint"
	"replicanode/duplication"
	"replicanode/gc"
	"replicanode/peer"
	"replicanode/plog"
	"replicanode/replica"
	"replicanode/server/admin"
	"replicanode/server/redis"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// Node is one replica process. Make it with New; Start and Stop may each be called once, Stop also more often.
type Node struct {
	opts     Options
	started  time.Time
	registry *prometheus.Registry
	phases   phases
	jobs     jobs

	listeners struct{ redis, admin, peer net.Listener }
	logFS     func(disk int) vfs.FS                // of the private logs; nil: the system's
	diskFS    vfs.FS                               // of disk statistics and dropped replicas; nil: the system's
	diskUsage func(path string) (gc.Usage, error)  // of disk statistics; nil: the system's
	tls       struct{ server, client *tls.Config } // of peers; nil without certificates
	folders   *Folders
	limits    limits
	admin     *admin.Server
	pool      *threadpool.Pool
	// startedPool are the settings that the pool was started with.
	startedPool threadpool.Settings
	// settings is held while an operator's change of the pool's settings is worked out and made.
	settings sync.Mutex
	// commonWaits is the controller's view of how long Common tasks wait.
	commonWaits recentWaits
	tasks       *tasks.Runner
	syncers     []*plog.Syncer // of the data folders that can be used
	host        *replica.Host
	// replicas is host for /readyz, which is asked while host is being made.
	replicas atomic.Pointer[replica.Host]
	// disks is maintenance.disk for the same, once it runs.
	disks    atomic.Pointer[gc.DiskStat]
	peers    *peer.Server
	client   *peer.Client
	source   *duplication.Source
	receiver *duplication.Receiver

	checkpoints *checkpoint.Service
	// pace is that of work which takes long and nobody waits for; nil: clients have to share.
	pace        *checkpoint.Pace
	maintenance maintenance
	redis       *redis.Server

	announced bool // a line of the log has told of the start

	mu    sync.Mutex
	stops []stop // what runs, in the order it was started
}

// limits are what the rooms must agree on, so that what one accepts no other refuses, here or in a cluster with the same options.
type limits struct {
	mutation   int // bytes that one command may write to a partition
	duplicated int // bytes of a duplicated batch
}

// Names of parts that Stop treats differently.
const (
	clientsServer = "clients' server" // the part that clients speak to; once it has stopped, all replies are sent
	dataFolder    = "data folder"     // its lock outlasts what was abandoned
)

// stop ends one part of the node.
type stop struct {
	name string
	run  func(ctx context.Context) error
}

// New checks the options. Nothing is bound, opened or written yet.
func New(o Options) (*Node, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n := &Node{opts: o, registry: prometheus.NewRegistry()}
	if err := n.loadTLS(); err != nil {
		return nil, err
	}
	n.registerLimits()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.phases.logger = o.Logger
	return n, nil
}

// Start runs the start-up phases and returns when the node serves clients. After an error, Stop must still be called.
func (n *Node) Start(ctx context.Context) error {
	n.started = time.Now()
	short, long := n.opts.StartTimeout, 10*n.opts.StartTimeout
	err := n.phases.run(ctx, []step{
		{name: PhaseListeners, deadline: short, run: n.bindListeners, quiet: true},
		{name: PhaseFolder, deadline: short, run: n.openFolder, quiet: true},
		{name: PhasePool, deadline: short, run: n.startPool},
		{name: PhaseReplicas, deadline: long, run: n.openReplicas, reasons: n.partitionReasons},
		{name: PhaseDuplication, deadline: short, run: n.startDuplication},
		{name: PhaseMaintenance, deadline: short, run: n.startMaintenance},
		{name: PhaseClients, deadline: short, run: n.serveClients},
	})
	if err != nil {
		return err
	}
	n.opts.Logger.Info("serving", "listen", n.Addresses().Listen, "admin", n.Addresses().Admin, "peer", n.Addresses().Peer,
		"partitions", n.folders.Identity.Partitions, "cluster", n.folders.Identity.ClusterID, "data", n.folders.String(),
		"seconds", time.Since(n.started).Seconds())
	return nil
}

// Addresses are where the node listens, with the ports that were picked for port 0. It may be called after Start.
func (n *Node) Addresses() Addresses {
	return Addresses{
		Listen: n.listeners.redis.Addr().String(),
		Admin:  n.listeners.admin.Addr().String(),
		Peer:   n.listeners.peer.Addr().String(),
		PID:    os.Getpid(),
	}
}

// onStop remembers how to end what was just started.
func (n *Node) onStop(name string, run func(ctx context.Context) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stops = append(n.stops, stop{name, run})
}

// onClose is onStop for what has no context.
func (n *Node) onClose(name string, closer func() error) {
	n.onStop(name, func(context.Context) error { return closer() })
}

// service is the contract of everything that runs.
type service interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// startService starts s and remembers to stop it.
func (n *Node) startService(ctx context.Context, name string, s service) error {
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	n.onStop(name, s.Stop)
	return nil
}
