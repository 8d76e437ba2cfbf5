package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"replicanode/threadpool"
)

// Periodic is a task that runs again and again and never overlaps itself.
type Periodic struct {
	r      *Runner
	code   *codeState
	key    string
	f      threadpool.Func
	ctx    context.Context
	cancel context.CancelFunc
	idle   chan struct{}

	mu sync.Mutex
	// busy is set from a submission to the end of its job; again asks for one more run right after.
	busy, again bool
	stopped     bool
	timer       *time.Timer
	runs        uint64
}

// Every runs f with the period and jitter of code's spec, first after a random part of the period so that many tasks do not
// start together. With a period of 0 it runs only when triggered.
func (r *Runner) Every(code Code, key string, f threadpool.Func) (*Periodic, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.codes[code]
	switch {
	case st == nil:
		return nil, fmt.Errorf("every %s: %w", code, ErrUnknownCode)
	case r.stopped:
		return nil, ErrStopped
	}
	p := &Periodic{r: r, code: st, key: key, f: f, idle: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	r.periodics[p] = struct{}{}
	if r.started {
		p.arm(r.firstDelay(st))
	}
	return p, nil
}

// firstDelay and delay draw the next interval; the caller holds r.mu. Negative: none.
func (r *Runner) firstDelay(st *codeState) time.Duration {
	if st.spec.Period == 0 {
		return -1
	}
	return time.Duration(r.random.Float64() * float64(st.spec.Period))
}

func (r *Runner) delay(st *codeState) time.Duration {
	if st.spec.Period == 0 {
		return -1
	}
	return time.Duration(float64(st.spec.Period) * (1 + st.spec.Jitter*(2*r.random.Float64()-1)))
}

// Trigger runs the task now, or once more right after its present run: any number of triggers that wait make one run.
func (p *Periodic) Trigger() {
	p.mu.Lock()
	if p.busy {
		p.again = true
		p.mu.Unlock()
		return
	}
	if p.stopped {
		p.mu.Unlock()
		return
	}
	p.busy = true
	p.mu.Unlock()
	p.run()
}

// Stop ends the runs, cancels the present one and waits for it.
func (p *Periodic) Stop() {
	p.r.mu.Lock()
	delete(p.r.periodics, p)
	p.r.mu.Unlock()
	p.halt()
	<-p.idle
}

// halt is Stop without waiting.
func (p *Periodic) halt() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.stopped, p.again = true, false
	if p.timer != nil {
		p.timer.Stop()
	}
	if !p.busy {
		close(p.idle)
	}
}

// arm sets the timer for the next run.
func (p *Periodic) arm(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	if d < 0 || p.stopped || p.busy {
		return
	}
	p.timer = time.AfterFunc(d, p.Trigger)
}

// rearm starts the present interval anew; the caller holds r.mu.
func (p *Periodic) rearm() {
	if p.r.started {
		p.arm(p.r.delay(p.code))
	}
}

// run submits one run; the caller has set busy.
func (p *Periodic) run() {
	_, err := p.r.submit(p.ctx, p.code.code, p.key, p.f, p.ended)
	if err == nil {
		return
	}
	if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrStopped) {
		p.r.log.Warn("periodic task not submitted", "code", string(p.code.code), "key", p.key, "error", err)
	}
	// A trigger that came meanwhile would meet the same refusal.
	p.mu.Lock()
	p.again = false
	p.mu.Unlock()
	p.ended(err)
}

// ended follows each run.
func (p *Periodic) ended(error) {
	p.mu.Lock()
	p.runs++
	switch {
	case p.stopped:
		p.busy = false
		close(p.idle)
		p.mu.Unlock()
	case p.again:
		p.again = false
		p.mu.Unlock()
		p.run()
	default:
		p.busy = false
		p.mu.Unlock()
		p.r.mu.Lock()
		d := p.r.delay(p.code)
		p.r.mu.Unlock()
		p.arm(d)
	}
}
