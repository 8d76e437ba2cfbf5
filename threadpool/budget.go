package threadpool

// budget pays for the bytes that Low and Common tasks charge. Each level has a bucket: Low's fills with LowFloor of
// the rate, Common's with the rest, and what does not fit into a full bucket goes to the other one. So either may use all that
// the other leaves, and neither can take what the other needs. A task that overdraws its bucket is parked until
// the level's income has covered everything charged up to and including its own charge: first come, first paid. LowCap
// bounds what Low's bucket takes, from its own part and from Common's.
type budget struct {
	rate    IORate
	at      int64
	buckets [2]bucket // Low, Common
}

type bucket struct {
	// income and spent are totals of bytes; their difference is the balance, at most the burst.
	income, spent float64
	// waiting holds the parked tasks, earliest charge first; the first head of them have left.
	waiting []*entry
	head    int
}

// minThrottle is the shortest time between two releases, so that small charges do not set a timer each.
const minThrottle = 100_000

func (b *budget) limited() bool { return b.rate.BytesPerSecond > 0 || b.rate.LowCap > 0 }

// limits says whether one level has to pay.
func (b *budget) limits(p Priority) bool {
	return b.rate.BytesPerSecond > 0 || p == Low && b.rate.LowCap > 0
}

// set changes the rate. The buckets start full.
func (b *budget) set(r IORate, now int64) {
	b.refill(now)
	old := budget{rate: b.rate}
	b.rate, b.at = r, now
	for i := range b.buckets {
		k := &b.buckets[i]
		if !old.limits(Priority(i)) {
			k.income, k.spent = float64(r.Burst), 0
		}
		k.income = min(k.income, k.spent+float64(r.Burst))
	}
}

func (b *budget) income(p Priority) float64 {
	if p == Low {
		switch own := float64(b.rate.BytesPerSecond) * b.rate.LowFloor; {
		case b.rate.BytesPerSecond == 0:
			return float64(b.rate.LowCap)
		case b.rate.LowCap > 0:
			return min(own, float64(b.rate.LowCap))
		default:
			return own
		}
	}
	return float64(b.rate.BytesPerSecond) * (1 - b.rate.LowFloor)
}

func (b *budget) refill(now int64) {
	dt := float64(now-b.at) / 1e9
	b.at = now
	if dt <= 0 || !b.limited() {
		return
	}
	low, common := &b.buckets[Low], &b.buckets[Common]
	over := common.fill(b.income(Common)*dt, float64(b.rate.Burst))
	common.fill(b.fillLow(low, over, dt), float64(b.rate.Burst))
}

// fillLow fills Low's bucket with its own income of dt seconds and what Common leaves, and returns what Common may have back.
func (b *budget) fillLow(low *bucket, left, dt float64) float64 {
	if b.rate.BytesPerSecond == 0 {
		low.fill(b.income(Low)*dt, float64(b.rate.Burst))
		return 0
	}
	own := float64(b.rate.BytesPerSecond) * b.rate.LowFloor * dt
	offered, kept := own+left, 0.0
	if ceiling := float64(b.rate.LowCap) * dt; b.rate.LowCap > 0 && offered > ceiling {
		offered, kept = ceiling, offered-ceiling
	}
	return low.fill(offered, float64(b.rate.Burst)) + kept
}

// fill adds n bytes and returns what did not fit.
func (k *bucket) fill(n, burst float64) float64 {
	fits := min(n, burst-(k.income-k.spent))
	k.income += fits
	return n - fits
}

// compact reuses the room of those who have left, so that the line takes no more than twice its length however long it is never
// empty.
func (k *bucket) compact() {
	if 2*k.head < len(k.waiting) {
		return
	}
	n := copy(k.waiting, k.waiting[k.head:])
	clear(k.waiting[n:])
	k.waiting, k.head = k.waiting[:n], 0
}

// charge books n bytes to e's level and reports whether e must wait for them.
func (b *budget) charge(e *entry, n int64, now int64) bool {
	l := e.level()
	if l == High || !b.limits(l) {
		return false
	}
	b.refill(now)
	k := &b.buckets[l]
	k.spent += float64(n)
	if k.spent <= k.income {
		return false
	}
	e.ticket = k.spent
	k.waiting = append(k.waiting, e)
	return true
}

// forget takes a throttled entry out of its line. What it charged stays charged: the bytes were moved.
func (b *budget) forget(e *entry) {
	for i := range b.buckets {
		k := &b.buckets[i]
		for j := k.head; j < len(k.waiting); j++ {
			if k.waiting[j] == e {
				copy(k.waiting[j:], k.waiting[j+1:])
				k.waiting[len(k.waiting)-1] = nil
				k.waiting = k.waiting[:len(k.waiting)-1]
				return
			}
		}
	}
}

// release readies the tasks whose charges are paid.
func (b *budget) release(c *core, now int64) {
	b.refill(now)
	for i := range b.buckets {
		k := &b.buckets[i]
		for k.head < len(k.waiting) && (!b.limits(Priority(i)) || k.waiting[k.head].ticket <= k.income+0.5) {
			e := k.waiting[k.head]
			k.waiting[k.head] = nil
			k.head++
			c.makeReady(e, now)
		}
		k.compact()
	}
}

// nextAt is when the next throttled task may be paid for. It may be early, never late by more than minThrottle.
func (b *budget) nextAt(now int64) int64 {
	at := int64(never)
	for i := range b.buckets {
		k, other := &b.buckets[i], &b.buckets[1-i]
		if k.head == len(k.waiting) {
			continue
		}
		need := k.waiting[k.head].ticket - k.income
		own, all := b.income(Priority(i)), float64(b.rate.BytesPerSecond)
		if Priority(i) == Low && b.rate.LowCap > 0 {
			if all = min(all, float64(b.rate.LowCap)); all == 0 {
				all = own
			}
		}
		seconds := need / all
		if room := float64(b.rate.Burst) - (other.income - other.spent); room > 0 && own < all {
			alone := room / b.income(Priority(1-i))
			if need <= own*alone {
				seconds = need / own
			} else {
				seconds = alone + (need-own*alone)/all
			}
		}
		at = min(at, now+max(minThrottle, int64(min(seconds*1e9, 1e15))))
	}
	return at
}
