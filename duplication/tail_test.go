package duplication

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"replicanode/replica/mutation"
)

// The oracle keeps everything ever added since the last gap.
func TestTailAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]int{0, 100, 1000, 20_000, 300_000}).Draw(t, "limit")
		start := rapid.Uint64Range(1, 1000).Draw(t, "start")
		tl := tail{limit: limit}
		tl.reset(start)
		var all []record
		next, trimmed := start, uint64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				next += rapid.Uint64Range(1, 5).Draw(t, "gap")
				all = nil
			case 1:
				trimmed = max(trimmed, next-min(next, rapid.Uint64Range(0, 20).Draw(t, "trim")))
				tl.trim(trimmed)
			default:
				data := bytes.Repeat([]byte{byte(next)}, rapid.SampledFrom([]int{0, 1, 50, 500, 20_000}).Draw(t, "size"))
				if len(data) == 0 {
					data = nil
				}
				tl.add(next, mutation.Timestamp(next), data)
				all = append(all, record{decree: next, timestamp: mutation.Timestamp(next), data: bytes.Clone(data)})
				clear(data)
				next++
			}
			checkTail(t, &tl, all)
		}
	})
}

func checkTail(t *rapid.T, tl *tail, all []record) {
	if tl.bytes > tl.limit {
		t.Fatalf("holds %d bytes, limit %d", tl.bytes, tl.limit)
	}
	if len(all) == 0 {
		return
	}
	from := rapid.Uint64Range(all[0].decree, all[len(all)-1].decree+1).Draw(t, "from")
	maxBytes := rapid.IntRange(1, 50_000).Draw(t, "max bytes")
	got, ok := tl.read(from, maxBytes, nil)
	if ok != (from >= tl.first()) {
		t.Fatalf("read from %d: %v, the tail starts at %d", from, ok, tl.first())
	}
	if !ok {
		return
	}
	want := all[from-all[0].decree:]
	if len(want) > 0 && len(got) == 0 {
		t.Fatalf("read nothing from %d, the newest is %d", from, all[len(all)-1].decree)
	}
	cost := 0
	for i, r := range got {
		if cost >= maxBytes {
			t.Fatalf("read more than %d bytes", maxBytes)
		}
		cost += recordOverhead + len(r.data)
		if r.decree != want[i].decree || r.timestamp != want[i].timestamp || !bytes.Equal(r.data, want[i].data) {
			t.Fatalf("decree %d differs", r.decree)
		}
	}
	if cost < maxBytes && len(got) != len(want) {
		t.Fatalf("stopped after %d of %d", len(got), len(want))
	}
}

func TestTailKeepsTheNewest(t *testing.T) {
	tl := tail{limit: 10 * (recordOverhead + 36)}
	tl.reset(1)
	for d := uint64(1); d <= 100; d++ {
		tl.add(d, 0, make([]byte, 36))
	}
	if got := tl.first(); got != 91 {
		t.Fatalf("the tail starts at %d, want 91", got)
	}
	tl.trim(95)
	if got := tl.first(); got != 96 {
		t.Fatalf("after trimming the tail starts at %d, want 96", got)
	}
}

// Every answer is early by at most some milliseconds, or a small part of the time that was ever spanned.
func TestTimelineAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var line timeline
		type made struct {
			decree    uint64
			timestamp mutation.Timestamp
			bytes     int
		}
		var all []made
		decree, at := uint64(0), mutation.Timestamp(1)<<40
		confirmed := uint64(0)
		for range rapid.IntRange(1, 12).Draw(t, "runs") {
			step := rapid.SampledFrom([]mutation.Timestamp{1, timelineResolution / 10, timelineResolution, 50 * timelineResolution}).Draw(t, "step")
			for range rapid.IntRange(1, 1500).Draw(t, "length") {
				decree += 1 + decree%3
				at += step
				line.add(decree, at, 100)
				all = append(all, made{decree, at, 100})
			}
			if len(line.points) > timelinePoints {
				t.Fatalf("%d points", len(line.points))
			}
			confirmed = rapid.Uint64Range(confirmed, decree).Draw(t, "confirmed")
			line.trim(confirmed)
			asked := rapid.Uint64Range(confirmed, decree+1).Draw(t, "asked")
			i := 0
			for i < len(all) && all[i].decree <= asked {
				i++
			}
			oldest, bytes, ok := line.after(asked)
			if ok != (i < len(all)) {
				t.Fatalf("after %d: %v, want %v", asked, ok, i < len(all))
			}
			if !ok {
				continue
			}
			slack := max(2*timelineResolution, (at-all[0].timestamp)/400)
			if oldest > all[i].timestamp || oldest+slack < all[i].timestamp {
				t.Fatalf("after %d: %d, want %d within %d", asked, oldest, all[i].timestamp, slack)
			}
			if want := uint64(100 * (len(all) - i)); bytes > want+want/2+1000*100 {
				t.Fatalf("after %d: %d bytes, want %d", asked, bytes, want)
			}
		}
	})
}
