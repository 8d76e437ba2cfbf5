package threadpool

import (
	"context"
	"testing"
)

// A short task may end before Submit has tied it to the submitter's context.
func TestShortTasksUnderACancelableContext(t *testing.T) {
	p, err := New(Options{Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range 2000 {
		if err := p.Do(ctx, Task{Run: func(context.Context, *Turn) error { return nil }}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.checkEmpty(t)
}
