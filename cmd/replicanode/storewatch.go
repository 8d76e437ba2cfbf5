package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/node"
	"replicanode/server/admin"
)

// storeWatch tells a waiting operator that the store of checkpoints does not answer, and gives up in the end.
type storeWatch struct {
	w        io.Writer
	bar      *checkpointBar
	patience time.Duration
	// begun is when the command began: what happened before is none of its business.
	begun  time.Time
	giveUp func(error)

	said   string // the newest problem that was told
	saidAt time.Time
}

// watchStore makes a storeWatch, which ends the command's context when it gives up. done must be called.
func watchStore(c *cli.Context, bar *checkpointBar) (watch *storeWatch, done func(), err error) {
	patience := c.Duration("store-timeout")
	if patience <= 0 {
		return nil, nil, &node.FlagError{Flag: "store-timeout", Value: patience.String(), Reason: "must be above 0"}
	}
	ctx, cancel := context.WithCancelCause(c.Context)
	c.Context = ctx
	return &storeWatch{w: c.App.ErrWriter, bar: bar, patience: patience, begun: time.Now(), giveUp: cancel}, func() { cancel(nil) }, nil
}

// Times of a storeWatch.
const (
	// storeHiccup is how long a store may be silent without a word.
	storeHiccup = 2 * time.Second
	// storeLook is the time between two looks at a store.
	storeLook = 200 * time.Millisecond
	// storeReminder is the time between two lines on one problem.
	storeReminder = 15 * time.Second
)

// show is the bar's, with a line on a store that does not answer.
func (s *storeWatch) show(a node.CheckpointsAnswer) {
	s.look(a.Store)
	s.bar.show(a)
}

// during looks now and then while f runs.
func (s *storeWatch) during(f func() error, status func() node.StoreStatus) error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	ticks := time.NewTicker(storeLook)
	defer ticks.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ticks.C:
			s.look(status())
		}
	}
}

func (s *storeWatch) look(st node.StoreStatus) {
	now := time.Now()
	if st.Since == nil {
		s.said = ""
		return
	}
	since := *st.Since
	if since.Before(s.begun) {
		since = s.begun
	}
	silent := now.Sub(since)
	switch {
	case silent > s.patience:
		s.giveUp(fmt.Errorf("the store of checkpoints %s has not answered for %s (--store-timeout): %s", st.Place, short(s.patience), st.Problem))
	case silent > storeHiccup && (st.Problem != s.said || now.Sub(s.saidAt) > storeReminder):
		s.said, s.saidAt = st.Problem, now
		s.bar.clear()
		fmt.Fprintf(s.w, "replicanode: the store of checkpoints %s does not answer: %s; its requests are tried again, for %s more\n", st.Place, st.Problem, short((s.patience - silent).Round(time.Second)))
	}
}

// sameStore refuses a --checkpoint-store that is not the running node's.
func sameStore(c *cli.Context, client *admin.Client) error {
	location := c.String("checkpoint-store")
	if location == "" {
		return nil
	}
	a, err := admin.Get[node.CheckpointsAnswer](c.Context, client, "/v1/checkpoints")
	if err != nil {
		return err
	}
	place, err := node.StorePlace(location)
	if err != nil {
		return err
	}
	if place != a.Store.Place {
		return &node.FlagError{Flag: "checkpoint-store", Value: place, Reason: fmt.Sprintf("the running node keeps its checkpoints in %s, and no others are made while it runs; leave the flag out (and REPLICANODE_CHECKPOINT_STORE unset)", a.Store.Place)}
	}
	return nil
}
