package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"replicanode/server/admin"
	"replicanode/threadpool"
)

// One task is moved and cancelled by the number that an explanation shows.
func TestOneTaskIsMovedAndCancelled(t *testing.T) {
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	parked, ended := make(chan struct{}), make(chan error, 1)
	h, err := n.pool.Submit(t.Context(), threadpool.Task{Code: "wait", Done: func(err error) { ended <- err }, Run: func(_ context.Context, turn *threadpool.Turn) error {
		close(parked)
		return turn.Await(make(chan struct{}))
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-parked
	request := func(id string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.SetPathValue("id", id)
		return r
	}
	id := strconv.FormatUint(h.ID(), 10)
	for _, from := range []threadpool.Priority{threadpool.Low, threadpool.High} {
		if f, err := n.postMove(request(id), TaskMove{Priority: "HIGH"}); err != nil || f.ID != h.ID() || f.Priority != from {
			t.Errorf("moved %+v, %v", f, err)
		}
	}
	if f, err := n.postCancel(request(id), none{}); err != nil || f.Code != "wait" || f.Cancelled {
		t.Errorf("cancelled %+v, %v", f, err)
	}
	if err := <-ended; !errors.Is(err, threadpool.ErrCanceled) {
		t.Errorf("ended with %v", err)
	}
	for id, want := range map[string]int{"1": http.StatusGone, "1000000": http.StatusNotFound, "0": http.StatusNotFound, "x": http.StatusBadRequest} {
		_, cancel := n.postCancel(request(id), none{})
		_, move := n.postMove(request(id), TaskMove{Priority: "low"})
		for _, err := range []error{cancel, move} {
			var e *admin.Error
			if !errors.As(err, &e) || e.Status != want {
				t.Errorf("task %s: %v, want status %d", id, err, want)
			}
		}
	}
}
