package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"

	"replicanode/peer"
	"replicanode/plog"
	"replicanode/replica"
	"replicanode/server/redis"
	"replicanode/server/resp"
	"replicanode/threadpool"
)

// poolOptions are those of the long pool.
func (o *Options) poolOptions() threadpool.Options {
	queued := threadpool.Levels{}
	for level := range queued {
		queued[level] = o.MaxQueued
	}
	return threadpool.Options{
		Workers:    o.Workers,
		MaxRunning: threadpool.Levels{threadpool.Low: max(0, o.LowLimit)},
		MaxQueued:  queued,
		MaxParked:  o.MaxParked,
		Guards:     o.guards(),
		Slice:      o.Slice,
		Decisions:  keptDecisions,
		IO:         threadpool.IORate{BytesPerSecond: max(0, o.IORate)},
		// Costs nothing but while an execution trace is taken.
		TraceRegions: true,
		Logger:       o.Logger,
	}
}

// replicaOptions are those of the partitions, without what a running node adds.
func (o *Options) replicaOptions(id Identity) replica.Options {
	return replica.Options{
		Partitions:       id.Partitions,
		NodeID:           id.NodeID,
		ClusterID:        id.ClusterID,
		Log:              plog.Options{SegmentBytes: o.SegmentBytes, KeepExcess: true, CacheBytes: o.Storage.LogCacheBytes, MaxPendingBytes: o.Storage.LogPendingBytes, Logger: o.Logger},
		MaxValueBytes:    o.Clients.MaxValueBytes,
		MaxMutationBytes: o.Clients.MaxCommandBytes,
		QueueCommands:    o.Storage.QueueCommands,
		MemTableBytes:    o.MemtableBytes,
		IndexCacheBytes:  max(0, o.Storage.IndexCacheBytes),
		Logger:           o.Logger,
	}
}

// clientOptions are those of the clients' server, without what a running node adds.
func (o *Options) clientOptions(l limits) redis.Options {
	c := &o.Clients
	return redis.Options{
		Password:         o.RequirePass,
		MaxClients:       c.MaxClients,
		Limits:           resp.Limits{MaxBulkBytes: c.MaxValueBytes, MaxArgs: c.MaxArguments, MaxInlineBytes: c.MaxInlineBytes, MaxRequestBytes: c.MaxRequestBytes},
		MaxMutationBytes: l.mutation,
		MaxReplyBytes:    c.MaxReplyBytes,
		MaxBufferBytes:   c.MaxBufferBytes,
		MaxPipeline:      c.MaxPipeline,
		WriteTimeout:     c.WriteTimeout,
		RequestTimeout:   c.RequestTimeout,
		IdleTimeout:      max(0, c.IdleTimeout),
		BusyTimeout:      c.BusyTimeout,
		Version:          ThisBuild().Version,
		Logger:           o.Logger,
	}
}

// validateTogether asks the rooms themselves whether the options work together, before anything is bound or written.
func (o *Options) validateTogether() error {
	pool := o.poolOptions()
	pool.EnsureDefaults()
	if err := pool.Validate(); err != nil {
		return fmt.Errorf("options of the long pool: %w", err)
	}
	r := o.replicaOptions(Identity{Partitions: max(1, o.Partitions), NodeID: 1, ClusterID: 1})
	r.Dir, r.Syncer = partitionsDir, plog.NewSyncer(plog.SyncerOptions{})
	r.EnsureDefaults()
	if err := r.Validate(); err != nil {
		return &FlagError{Flag: "max-command-size", Value: strconv.Itoa(o.Clients.MaxCommandBytes), Reason: fmt.Sprintf("does not work with the other limits: %v", err)}
	}
	if o.Dup.ReceiveBytes < int64(r.MaxDuplicatedBytes) {
		return &FlagError{Flag: "dup-receive-bytes", Value: strconv.FormatInt(o.Dup.ReceiveBytes, 10), Reason: fmt.Sprintf("must be at least %d, the largest batch with this --max-command-size", r.MaxDuplicatedBytes)}
	}
	if o.Storage.LogPendingBytes < int64(r.MaxDuplicatedBytes) {
		return &FlagError{Flag: "log-pending-bytes", Value: strconv.FormatInt(o.Storage.LogPendingBytes, 10), Reason: fmt.Sprintf("must be at least %d, the largest batch with this --max-command-size", r.MaxDuplicatedBytes)}
	}
	return nil
}

// loadTLS reads the configured certificates, so that a wrong file is told before anything is bound or written.
func (n *Node) loadTLS() error {
	o := &n.opts
	if o.PeerTLSCert == "" {
		return nil
	}
	for _, f := range o.tlsFlags() {
		if err := readablePEM(f.name); err != nil {
			return &FlagError{Flag: f.flag, Value: f.name, Reason: err.Error()}
		}
	}
	certificate, err := os.ReadFile(o.PeerTLSCert)
	if err == nil {
		err = validCertificate(certificate)
	}
	if err != nil {
		return &FlagError{Flag: "peer-tls-cert", Value: o.PeerTLSCert, Reason: err.Error()}
	}
	if _, err := tls.LoadX509KeyPair(o.PeerTLSCert, o.PeerTLSKey); err != nil {
		return &FlagError{Flag: "peer-tls-key", Value: o.PeerTLSKey, Reason: fmt.Sprintf("is not the key of --peer-tls-cert %s: %v", o.PeerTLSCert, err)}
	}
	n.tls.server, n.tls.client, err = peer.LoadTLS(peer.TLSFiles{Certificate: o.PeerTLSCert, Key: o.PeerTLSKey, CA: o.PeerTLSCA})
	if err != nil {
		return &FlagError{Flag: "peer-tls-ca", Value: o.PeerTLSCA, Reason: err.Error()}
	}
	return nil
}

func readablePEM(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("can't be read: %w", err)
	}
	if block, _ := pem.Decode(data); block == nil {
		return fmt.Errorf("has no PEM block (-----BEGIN …-----)")
	}
	return nil
}

// validCertificate checks the first certificate, the node's own.
func validCertificate(data []byte) error {
	for {
		block, rest := pem.Decode(data)
		switch {
		case block == nil:
			return fmt.Errorf("has no certificate in it")
		case block.Type != "CERTIFICATE":
			data = rest
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("has a certificate that can't be read: %w", err)
		}
		return nil
	}
}
