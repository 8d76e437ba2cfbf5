package handover

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slot notes when it was given away.
type slot struct {
	away  time.Duration
	times int
}

func (s *slot) AwaitEnd(ch <-chan struct{}) error {
	begun := time.Now()
	<-ch
	s.away += time.Since(begun)
	s.times++
	return errors.New("cancelled meanwhile")
}

// TestHungWorkGivesItsSlotAway after Patience, until its next call, which is made with the slot; work that shows signs of life keeps it.
func TestHungWorkGivesItsSlotAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slot{}
		boom := errors.New("boom")
		calls := 0
		err := Run(s, func(w *Work) error {
			for range 100 {
				time.Sleep(Patience / 2)
				if err := w.Do(func() error { calls++; return boom }); err != boom {
					t.Errorf("a call returned %v", err)
				}
			}
			if s.times != 0 {
				t.Error("the slot was given away")
			}
			time.Sleep(time.Hour)
			if err := w.Do(func() error { calls++; return nil }); err != nil || s.times != 1 {
				t.Errorf("%v, given away %d times", err, s.times)
			}
			time.Sleep(time.Hour)
			return boom
		})
		if err != boom || calls != 101 || s.times != 2 || s.away != 2*time.Hour-2*Patience {
			t.Errorf("%v, %d calls, given away %d times for %v", err, calls, s.times, s.away)
		}
	})
}

// TestPanicIsTheTasks, wherever it happens.
func TestPanicIsTheTasks(t *testing.T) {
	for name, f := range map[string]func(w *Work) error{
		"work": func(*Work) error { panic("broken") },
		"call": func(w *Work) error { return w.Do(func() error { panic("broken") }) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(v.(string), "broken") {
					t.Errorf("recovered %v", v)
				}
			}()
			_ = Run(&slot{}, f)
		})
	}
}

func BenchmarkDo(b *testing.B) {
	_ = Run(&slot{}, func(w *Work) error {
		for b.Loop() {
			_ = w.Do(func() error { return nil })
		}
		return nil
	})
}
