package replica

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestViewTakesTheAnswerToAnyOfItsQuestions: asking again does not void what was asked before, or views would never
// start where an answer takes longer than that.
func TestViewTakesTheAnswerToAnyOfItsQuestions(t *testing.T) {
	var p Partition
	r := &reader{done: make(chan error, 1)}
	p.readers.waiting = []*reader{r}
	if p.unanswered() {
		t.Error("a question that was not asked counts as unanswered")
	}
	if !p.issueReads(1) || !p.unanswered() {
		t.Fatal("the view asks nothing")
	}
	if p.issueReads(2) || !p.unanswered() {
		t.Error("the view begins anew")
	}
	p.applied.Store(5)
	p.readIndexed(1, 5)
	select {
	case err := <-r.done:
		must(t, err)
	default:
		t.Error("the answer to the first question is lost")
	}
}

// TestViewEndsWithTheHost: a view that begins after a partition's goroutine has ended waits for nobody.
func TestViewEndsWithTheHost(t *testing.T) {
	c := startCluster(t, 1, 1)
	defer c.stop(t)
	c.leader(t, 0)
	p := c.nodes[0].Partition(0)
	p.drain()
	<-p.loopDone
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.View(ctx, func(*View) error { return nil }); !errors.Is(err, ErrStopped) {
		t.Errorf("view: %v", err)
	}
}

// TestReadingEndsWithItsContext, where no other node is asked too.
func TestReadingEndsWithItsContext(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	setAll(t, p, countSlice+10, "v")
	ctx, cancel := context.WithCancel(t.Context())
	slices := 0
	_, err := p.Count(ctx, func(int) error { slices++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || slices != 1 {
		t.Errorf("count: %v after %d slices", err, slices)
	}
	if err := p.View(ctx, func(*View) error { t.Error("read"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("view: %v", err)
	}
}

func TestOnlyTheLeaderKnowsTheProgress(t *testing.T) {
	c := startCluster(t, 1, 1)
	defer c.stop(t)
	for _, n := range c.nodes {
		must(t, n.WaitReady(t.Context()))
	}
	leader, at := c.leader(t, 0)
	if _, err := leader.DuplicationProgress(9, 0); err != nil {
		t.Errorf("leader: %v", err)
	}
	follower := c.nodes[(at+1)%3].Partition(0)
	if _, err := follower.DuplicationProgress(9, 0); !errors.Is(err, ErrNotReady) {
		t.Errorf("follower: %v", err)
	}
}
