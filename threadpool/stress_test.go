package threadpool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Everything at once, with real goroutines: each task that Submit accepted ends exactly once, keys never overlap, and a stopped
// pool has forgotten everything.
func TestEverythingAtOnce(t *testing.T) {
	length := 500 * time.Millisecond
	if os.Getenv("REPLICANODE_STRESS") == "1" {
		length = 30 * time.Second
	}
	p, err := New(Options{
		Workers: 4, MaxQueued: Levels{200, 200, 200}, MaxParked: 16, Guards: &Guards{MaxWait: 5 * time.Millisecond, LowShare: 0.1, CommonReserve: 1},
		Slice: time.Millisecond, IO: IORate{BytesPerSecond: 1 << 30},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var accepted, ended atomic.Int64
	var inKey [4]atomic.Int32
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for g := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 3))
			var handles []Handle
			var cancels []context.CancelFunc
			defer func() {
				for _, cancel := range cancels {
					cancel()
				}
			}()
			for time.Now().Before(end) {
				ctx := context.Background()
				if rnd.IntN(8) == 0 {
					timed, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(3000))*time.Microsecond)
					ctx = timed
					cancels = append(cancels, cancel)
				}
				task, once := stressTask(t, rnd, &inKey)
				task.Done = func(error) {
					ended.Add(1)
					if once.Add(1) != 1 {
						t.Error("a task ended twice")
					}
				}
				h, err := p.Submit(ctx, task)
				if err == nil {
					accepted.Add(1)
					handles = append(handles, h)
				} else if !errors.Is(err, ErrQueueFull) && !errors.Is(err, ErrCoalesced) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				disturb(t, p, rnd, handles)
				if len(handles) > 50 {
					handles = handles[25:]
				}
				for len(cancels) > rnd.IntN(50) {
					cancels[0]()
					cancels = cancels[1:]
				}
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatalf("%v\n%s", err, p.Explain(10))
	}
	if accepted.Load() != ended.Load() || accepted.Load() == 0 {
		t.Errorf("%d accepted, %d ended", accepted.Load(), ended.Load())
	}
	p.checkEmpty(t)
}

// stressTask makes a task that does one of the things tasks do.
func stressTask(t *testing.T, rnd *rand.Rand, inKey *[4]atomic.Int32) (Task, *atomic.Int32) {
	kind, key := rnd.IntN(8), rnd.IntN(8)
	task := Task{Code: fmt.Sprint("code", rnd.IntN(4)), Priority: Priority(rnd.IntN(3))}
	if key < 4 {
		task.Key = fmt.Sprint("key", key)
	}
	switch rnd.IntN(8) {
	case 0:
		task.Deadline = time.Now().Add(time.Duration(rnd.IntN(2000)) * time.Microsecond)
	case 1:
		task.Timeout = time.Duration(1+rnd.IntN(2000)) * time.Microsecond
	case 2:
		task.Coalesce = true
	case 3:
		task.Retry = func(error) (time.Duration, bool) { return 100 * time.Microsecond, kind%2 == 0 }
	}
	task.Run = func(ctx context.Context, turn *Turn) error {
		if key < 4 {
			if inKey[key].Add(1) != 1 {
				t.Error("two tasks of one key at once")
			}
			defer inKey[key].Add(-1)
		}
		switch kind {
		case 0:
			return turn.Sleep(200 * time.Microsecond)
		case 1:
			ch := make(chan struct{})
			timer := time.AfterFunc(100*time.Microsecond, func() { close(ch) })
			defer timer.Stop()
			return turn.Await(ch)
		case 2:
			panic("on purpose")
		case 3:
			<-time.After(50 * time.Microsecond)
			return ctx.Err()
		case 4:
			if turn.Attempt() < 3 {
				return errors.New("again")
			}
			return nil
		default:
			for range 20 {
				if err := turn.Yield(1 << 16); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return task, new(atomic.Int32)
}

// disturb changes something while tasks run.
func disturb(t *testing.T, p *Pool, rnd *rand.Rand, handles []Handle) {
	var err error
	switch rnd.IntN(40) {
	case 0, 1, 2:
		if len(handles) > 0 {
			handles[rnd.IntN(len(handles))].Cancel()
		}
	case 3:
		if len(handles) > 0 {
			handles[rnd.IntN(len(handles))].SetPriority(Priority(rnd.IntN(3)))
		}
	case 4:
		err = p.SetWorkers(1 + rnd.IntN(6))
	case 5:
		err = p.SetPriority(fmt.Sprint("code", rnd.IntN(4)), Priority(rnd.IntN(3)))
	case 6:
		err = p.SetCodeLimits(fmt.Sprint("code", rnd.IntN(4)), CodeLimits{MaxRunning: rnd.IntN(3), MaxStarted: rnd.IntN(4)})
	case 7:
		err = p.SetIORate(IORate{BytesPerSecond: int64(rnd.IntN(2)) << 28, LowCap: int64(rnd.IntN(2)) << 26})
	case 8:
		err = p.SetGuards(Guards{MaxWait: time.Duration(rnd.IntN(3)) * time.Millisecond, LowShare: 0.1 * rnd.Float64(), CommonReserve: rnd.IntN(2)})
	case 9:
		_ = p.Explain(5).String()
		_ = p.Stats()
	case 10:
		err = p.ResetPriority(fmt.Sprint("code", rnd.IntN(4)))
	case 11:
		if len(handles) > 0 {
			_, err = p.CancelTask(handles[rnd.IntN(len(handles))].ID())
		}
	case 12:
		if len(handles) > 0 {
			_, err = p.MoveTask(handles[rnd.IntN(len(handles))].ID(), Priority(rnd.IntN(3)))
		}
	}
	if err != nil && !errors.Is(err, ErrTaskEnded) {
		t.Error(err)
	}
}
