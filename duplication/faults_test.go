package duplication

import (
	"testing"

	"pgregory.net/rapid"

	"replicanode/replica"
	"replicanode/replica/mutation"
)

// Whatever happens on the way, and whichever side restarts, the remote ends up with every mutation of this cluster exactly once
// and in order, and with nothing else.
func TestExactlyOnceInOrderUnderFaults(t *testing.T) {
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		if runs++; runs > 60 && !stress() {
			return
		}
		o := drawOptions(r)
		o.SkipDecrees = rapid.SampledFrom([]uint64{5, 4096}).Draw(r, "skip decrees")
		o.RecordInterval = 1 // recording at once puts progress records among the mutations
		s := newScenario(t, o)
		defer s.close()
		s.play(r, 25)
		for i, p := range s.partitions {
			s.targets[i].mustEqual(t, p)
		}
	})
}

// scenario is a harness that is closed by itself and whose parts come and go.
type scenario struct {
	*harness
	paused bool
}

func newScenario(t *testing.T, o Options) *scenario {
	return &scenario{harness: newHarness(t, 2, o)}
}

// drawOptions draws bounds that are met soon.
func drawOptions(r *rapid.T) Options {
	return Options{
		TailBytes:     rapid.SampledFrom([]int{-1, 3000, 1 << 20}).Draw(r, "tail bytes"),
		BatchBytes:    rapid.SampledFrom([]int{1024, 8192}).Draw(r, "batch bytes"),
		WindowBatches: rapid.IntRange(1, 6).Draw(r, "window"),
		AckTimeout:    ackTimeout,
	}
}

// play starts both sides on a network with faults, takes up to so many steps, and heals everything.
func (s *scenario) play(r *rapid.T, most int) {
	s.faults.set(rapid.Uint64().Draw(r, "seed"), rapid.SampledFrom([]int{0, 5, 40}).Draw(r, "fault percent"))
	s.startReceiver()
	s.startSource()
	for range rapid.IntRange(1, most).Draw(r, "steps") {
		s.step(r)
	}
	s.heal()
}

func (s *scenario) step(r *rapid.T) {
	p := s.partitions[rapid.IntRange(0, len(s.partitions)-1).Draw(r, "partition")]
	switch rapid.IntRange(0, 12).Draw(r, "step") {
	case 0:
		s.stopReceiver()
		s.startReceiver()
	case 1:
		s.stopReceiver()
	case 2:
		if s.server == nil {
			s.startReceiver()
		}
	case 3:
		s.stopSource()
		s.paused = false
		s.startSource()
	case 4:
		s.faults.cut()
	case 5:
		s.paused = !s.paused
		if s.paused {
			s.must(s.source.Pause("backup"))
		} else {
			s.must(s.source.Resume("backup"))
		}
	case 6:
		// What log collection may do.
		if decree, known := s.source.Confirmed(p.id); known {
			s.must(p.log.Release(min(decree, p.log.Committed())))
		}
	case 7:
		for range rapid.IntRange(1, 10).Draw(r, "others") {
			p.append(nil, p.foreign(), p.user(clusterB, 10))
		}
	default:
		p.write(rapid.IntRange(1, 40).Draw(r, "writes"), rapid.SampledFrom([]int{1, 100, 3000}).Draw(r, "size"))
	}
}

// heal ends all faults.
func (s *scenario) heal() {
	s.faults.set(0, 0)
	s.faults.cut()
	if s.server == nil {
		s.startReceiver()
	}
	s.must(s.source.Resume("backup"))
}

// A remote that was set back, for example restored from an older copy, is brought up to date from the log.
func TestRemoteSetBackIsFilledAgain(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: 1000})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	p.write(200, 100)
	target.mustEqual(t, p)
	h.stopReceiver()
	target.mu.Lock()
	target.progress = 50
	for i, m := range target.got {
		if m.Decree > 50 {
			target.got = append([]mutation.SourceMutation(nil), target.got[:i]...)
			break
		}
	}
	target.mu.Unlock()
	h.startReceiver()
	target.mustEqual(t, p)
}

// In fail mode skip, just what the remote refuses by itself is left out, whatever else happens on the way.
func TestSkipsOnlyWhatIsRefusedUnderFaults(t *testing.T) {
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		if runs++; runs > 30 && !stress() {
			return
		}
		o := drawOptions(r)
		o.Remotes = []Remote{{Name: "backup", Addresses: []string{node}, FailMode: FailSkip}}
		s := newScenario(t, o)
		defer s.close()
		every := rapid.Uint64Range(2, 60).Draw(r, "one of so many is refused")
		refused := make(map[uint64]error)
		var decrees []uint64
		for d := every; d < 2000; d += every {
			refused[d] = &replica.TooLargeError{What: "value", Bytes: 9, Limit: 8}
			decrees = append(decrees, d)
		}
		for _, target := range s.targets {
			target.refused = refused
		}
		s.play(r, 12)
		for i, p := range s.partitions {
			p.without(decrees...)
			s.targets[i].mustEqual(t, p)
		}
	})
}
