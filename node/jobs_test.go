package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"replicanode/server/admin"
)

// toldJob is a job that ends when it is told to. looks gets a value whenever somebody looks at it.
type toldJob struct{ done, looks chan struct{} }

func newToldJob() toldJob { return toldJob{make(chan struct{}), make(chan struct{}, 64)} }

func (j toldJob) Done() <-chan struct{} {
	j.looks <- struct{}{}
	return j.done
}
func (j toldJob) Err() error { return errors.New("told to end") }

// TestJobIsWaitedFor asks for a job's end: the answer comes with the end, after the time, or when the node stops.
func TestJobIsWaitedFor(t *testing.T) {
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	c := api(t, n)
	type answer struct {
		s   JobStatus
		err error
	}
	answers := make(chan answer, 1)
	begin := func() (j toldJob, url string) {
		j = newToldJob()
		url = fmt.Sprintf("/v1/jobs/%d?wait=", n.jobs.add(j).ID)
		<-j.looks
		return j, url
	}
	wait := func(j toldJob, url string) {
		go func() {
			s, err := admin.Get[JobStatus](t.Context(), c, url+"20s")
			answers <- answer{s, err}
		}()
		<-j.looks
	}
	_, url := begin()
	for _, w := range []string{"1", "-1s", "21s", "soon"} {
		if _, err := admin.Get[JobStatus](t.Context(), c, url+w); err == nil {
			t.Errorf("wait=%s was accepted", w)
		}
	}
	for _, w := range []string{"", "0s", "1ms"} {
		if s, err := admin.Get[JobStatus](t.Context(), c, url+w); err != nil || s.Done {
			t.Errorf("wait=%s: %+v, %v", w, s, err)
		}
	}
	j, url := begin()
	wait(j, url)
	close(j.done)
	if a := <-answers; a.err != nil || !a.s.Done || a.s.Error != "told to end" {
		t.Errorf("the end: %+v", a)
	}
	j, url = begin()
	wait(j, url)
	began := time.Now()
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > maxJobWait/2 {
		t.Errorf("a request that waits held up the stop for %v", took)
	}
	if a := <-answers; a.err != nil || a.s.Done {
		t.Errorf("the stop: %+v", a)
	}
}
