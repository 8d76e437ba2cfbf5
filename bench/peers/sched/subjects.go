package main

import (
	"sync"
	"time"

	"github.com/alitto/pond/v2"
	"github.com/panjf2000/ants/v2"

	"replicanode/bench/sched"
)

// antsPeer is a raw ants pool: no queue of its own, so its submitters block.
func antsPeer() sched.Peer {
	return sched.Peer{Name: "ants", Open: func(workers int) (sched.PeerPool, error) {
		p, err := ants.NewPool(workers)
		if err != nil {
			return nil, err
		}
		return antsPool{p}, nil
	}}
}

type antsPool struct{ pool *ants.Pool }

func (p antsPool) Submit(f func()) error { return p.pool.Submit(f) }
func (p antsPool) Close() error          { return p.pool.ReleaseTimeout(10 * time.Second) }

// pondPeer is a pond pool with its unbounded queue.
func pondPeer() sched.Peer {
	return sched.Peer{Name: "pond", Queues: true, Open: func(workers int) (sched.PeerPool, error) {
		return pondPool{pond.NewPool(workers)}, nil
	}}
}

type pondPool struct{ pool pond.Pool }

func (p pondPool) Submit(f func()) error { return p.pool.Go(f) }

func (p pondPool) Close() error {
	p.pool.StopAndWait()
	return nil
}

// goroutinePeer starts a goroutine for each task.
func goroutinePeer() sched.Peer {
	return sched.Peer{Name: "goroutine per task", Open: func(int) (sched.PeerPool, error) { return &goroutines{}, nil }}
}

type goroutines struct{ wg sync.WaitGroup }

func (g *goroutines) Submit(f func()) error {
	g.wg.Go(f)
	return nil
}

func (g *goroutines) Close() error {
	g.wg.Wait()
	return nil
}
