package duplication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"replicanode/peer"
	"replicanode/plog"
	"replicanode/replica"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// cluster is a whole one-node cluster: replicas, long pool, duplication in both directions, and a peer server.
type cluster struct {
	tb       testing.TB
	id       uint64
	dir      string
	options  Options
	dialling *dialling

	syncer   *plog.Syncer
	host     *replica.Host
	pool     *threadpool.Pool
	tasks    *tasks.Runner
	client   *peer.Client
	receiver *Receiver
	server   *peer.Server
	source   *Source
	up       bool
}

const clusterPartitions = 2

func (c *cluster) name() string { return fmt.Sprintf("cluster-%d:1", c.id) }

func (c *cluster) start(other *cluster) {
	c.tb.Helper()
	ctx := context.Background()
	must := func(err error) {
		c.tb.Helper()
		if err != nil {
			c.tb.Fatal(err)
		}
	}
	var err error
	c.syncer = plog.NewSyncer(plog.SyncerOptions{})
	must(c.syncer.Start(ctx))
	c.host, err = replica.NewHost(replica.Options{
		Dir: c.dir, Partitions: clusterPartitions, ClusterID: c.id, Syncer: c.syncer, MemTableBytes: 8 << 20,
		Tick: 10 * time.Millisecond, Log: plog.Options{SegmentBytes: 1 << 20},
	})
	must(err)
	must(c.host.Start(ctx))
	must(c.host.WaitReady(ctx))
	c.pool, err = threadpool.New(threadpool.Options{Workers: 2})
	must(err)
	must(c.pool.Start(ctx))
	c.tasks, err = tasks.New(tasks.Options{Pool: c.pool})
	must(err)
	must(c.tasks.Start(ctx))
	c.receiver, err = NewReceiver(ReceiverOptions{
		ClusterID: c.id, PartitionCount: clusterPartitions, Target: func(id uint32) Target { return c.host.Partition(id) },
	})
	must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	c.server, err = peer.NewServer(peer.ServerOptions{Listener: listener, Handlers: peer.Handlers{Duplication: c.receiver}})
	must(err)
	must(c.server.Start(ctx))
	c.dialling.set(c.name(), listener.Addr().String())
	c.client, err = peer.NewClient(peer.ClientOptions{Dial: c.dialling.dial})
	must(err)
	o := c.options
	o.ClusterID, o.Network, o.Jobs = c.id, c.client, c.tasks
	o.Remotes = []Remote{{Name: "other", Addresses: []string{other.name()}}}
	o.RetryMin, o.RetryMax, o.RecordInterval = time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	for _, p := range c.host.Partitions() {
		o.Partitions = append(o.Partitions, p)
	}
	c.source, err = New(o)
	must(err)
	must(c.source.Start(ctx))
	c.up = true
}

func (c *cluster) stop() {
	c.tb.Helper()
	if !c.up {
		return
	}
	c.up = false
	c.dialling.set(c.name(), "")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for what, stop := range []func(context.Context) error{
		c.source.Stop, c.receiver.Stop, c.server.Stop, func(context.Context) error { return c.client.Close() },
		c.tasks.Stop, c.pool.Stop, c.host.Stop, c.syncer.Stop,
	} {
		if err := stop(ctx); err != nil {
			c.tb.Errorf("stop %d: %v", what, err)
		}
	}
}

// dialling knows where the clusters are.
type dialling struct{ harness }

func (d *dialling) set(name, address string) { d.setAddress(name, address) }

// command is a function that runs in a partition.
type command struct {
	run  func(tx *replica.Tx) error
	err  error
	done chan error
}

func (c *command) Execute(tx *replica.Tx) { c.err = c.run(tx) }
func (c *command) Finish(err error)       { c.done <- errors.Join(err, c.err) }

func (c *cluster) do(partition uint32, run func(tx *replica.Tx) error) {
	c.tb.Helper()
	cmd := &command{run: run, done: make(chan error, 1)}
	if err := c.host.Partition(partition).Propose(cmd); err != nil {
		c.tb.Fatal(err)
	}
	if err := <-cmd.done; err != nil {
		c.tb.Fatal(err)
	}
}

func (c *cluster) set(partition uint32, key, value string) {
	c.tb.Helper()
	c.do(partition, func(tx *replica.Tx) error { return tx.Put([]byte(key), []byte(value), 0) })
}

// increment reads, adds one, and writes: applied twice, the count would show it.
func (c *cluster) increment(partition uint32, key string) {
	c.tb.Helper()
	c.do(partition, func(tx *replica.Tx) error {
		v, _, err := tx.Get([]byte(key))
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(string(v.Data))
		return tx.Put([]byte(key), strconv.AppendInt(nil, int64(n+1), 10), 0)
	})
}

func (c *cluster) get(partition uint32, key string) string {
	c.tb.Helper()
	var value string
	err := c.host.Partition(partition).View(context.Background(), func(v *replica.View) error {
		got, _, err := v.Get([]byte(key))
		value = string(got.Data)
		return err
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return value
}

// drained waits until everything made here is at the other cluster.
func (c *cluster) drained() {
	c.tb.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		lag, err := c.source.LagSample("other")
		if err != nil {
			c.tb.Fatal(err)
		}
		if lag == (Lag{}) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.tb.Fatalf("never caught up: %+v", c.source.Status())
		}
	}
}

func newClusters(t testing.TB, o Options) (a, b *cluster) {
	d := &dialling{harness{addresses: make(map[string]string)}}
	a = &cluster{tb: t, id: 1, dir: t.TempDir(), options: o, dialling: d}
	b = &cluster{tb: t, id: 2, dir: t.TempDir(), options: o, dialling: d}
	a.start(b)
	b.start(a)
	t.Cleanup(func() {
		a.stop()
		b.stop()
	})
	return a, b
}

// Two clusters duplicate to each other while both restart: both end with the same values, the later write of a key wins, and
// counters that only one side increments are exact.
func TestTwoClustersConverge(t *testing.T) {
	for name, o := range map[string]Options{"tail": {}, "log": {TailBytes: -1, BatchBytes: 2048}} {
		t.Run(name, func(t *testing.T) {
			a, b := newClusters(t, o)
			const perRound = 24
			rounds := 4
			if stress() {
				rounds = 50
			}
			for round := range rounds {
				for i := range perRound {
					p := uint32(i % clusterPartitions)
					a.increment(p, "count a")
					b.increment(p, "count b")
					a.set(p, fmt.Sprintf("shared %d", i%7), fmt.Sprintf("a %d %d", round, i))
					b.set(p, fmt.Sprintf("shared %d", i%7), fmt.Sprintf("b %d %d", round, i))
				}
				restarted, other, counter := a, b, "count b"
				if round%2 == 1 {
					restarted, other, counter = b, a, "count a"
				}
				restarted.stop()
				other.increment(0, counter)
				restarted.start(other)
			}
			a.drained()
			b.drained()
			for p := range uint32(clusterPartitions) {
				for _, key := range []string{"count a", "count b"} {
					want := rounds * perRound / clusterPartitions
					if p == 0 {
						want += rounds / 2
					}
					if gotA, gotB := a.get(p, key), b.get(p, key); gotA != strconv.Itoa(want) || gotB != gotA {
						t.Errorf("partition %d: %s is %s there and %s here, want %d", p, key, gotA, gotB, want)
					}
				}
				for i := range 7 {
					key := fmt.Sprintf("shared %d", i)
					if gotA, gotB := a.get(p, key), b.get(p, key); gotA != gotB || gotA == "" {
						t.Errorf("partition %d: %s is %q there and %q here", p, key, gotA, gotB)
					}
				}
			}
		})
	}
}
