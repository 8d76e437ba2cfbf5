package load

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

func TestScheduleFollowsItsRate(t *testing.T) {
	const rate, n = 8000.0, 200_000
	s, err := newSchedule(Poisson, rate, 7)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := newSchedule(Poisson, rate, 7)
	other, _ := newSchedule(Poisson, rate, 8)
	var last time.Duration
	var sum, squares float64
	same := 0
	for range n {
		at := s.next()
		if at != again.next() {
			t.Fatal("the same seed gave another schedule")
		}
		if at == other.next() {
			same++
		}
		gap := (at - last).Seconds()
		if gap < 0 {
			t.Fatal("time went back")
		}
		sum, squares, last = sum+gap, squares+gap*gap, at
	}
	mean := sum / n
	deviation := math.Sqrt(squares/n - mean*mean)
	if math.Abs(mean*rate-1) > 0.01 || math.Abs(deviation*rate-1) > 0.02 {
		t.Errorf("gaps have mean %.4f and deviation %.4f of 1/rate, want 1 and 1", mean*rate, deviation*rate)
	}
	if same > n/100 {
		t.Error("another seed gave the same schedule")
	}
	e, _ := newSchedule(Evenly, 1000, 0)
	for i := range 5000 {
		if at := e.next(); at != time.Duration(i)*time.Millisecond {
			t.Fatalf("arrival %d at %v", i, at)
		}
	}
}

func TestScheduleRefusesRates(t *testing.T) {
	for _, rate := range []float64{0, -1, math.NaN(), math.Inf(1), MaxRate + 1} {
		if _, err := newSchedule(Poisson, rate, 0); err == nil {
			t.Errorf("rate %v was taken", rate)
		}
	}
}

// Samples are compared with the exact probabilities by a chi-square test.
func TestKeysFollowTheirDistribution(t *testing.T) {
	const n, samples = 100, 200_000
	for _, tc := range []struct {
		dist  Distribution
		theta float64
	}{{Uniform, 1}, {Zipfian, 0.5}, {Zipfian, 0.99}, {Zipfian, 1}, {Zipfian, 2}} {
		p, err := newPicker(tc.dist, n, tc.theta)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		counts := make([]float64, n)
		for range samples {
			counts[p.pick(rng)]++
		}
		weights, sum := make([]float64, n), 0.0
		for i := range weights {
			weights[i] = 1
			if tc.dist == Zipfian {
				weights[i] = math.Pow(float64(i+1), -tc.theta)
			}
			sum += weights[i]
		}
		var chi, bins float64
		for i := range counts {
			want := weights[i] / sum * samples
			if want < 5 {
				continue
			}
			chi += (counts[i] - want) * (counts[i] - want) / want
			bins++
		}
		// Six deviations of a chi-square distribution with that many degrees of freedom.
		if limit := bins + 6*math.Sqrt(2*bins); chi > limit {
			t.Errorf("%s %v: chi-square %.0f with %v bins, limit %.0f", tc.dist, tc.theta, chi, bins, limit)
		}
	}
}

func TestKeysStayInTheirSpace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint32Range(1, MaxKeys).Draw(t, "keys")
		d := rapid.SampledFrom([]Distribution{Uniform, Zipfian}).Draw(t, "dist")
		p, err := newPicker(d, n, rapid.Float64Range(0.01, 5).Draw(t, "theta"))
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range 100 {
			if k := p.pick(rng); k >= n {
				t.Fatalf("key %d of %d", k, n)
			}
		}
	})
}

func TestHistogramAgreesWithSortedSamples(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	recorders := newRecorders(4)
	var all []int64
	for i := range 50_000 {
		d := time.Duration(math.Exp(rng.NormFloat64()*2) * float64(time.Millisecond))
		all = append(all, max(d.Microseconds(), 1))
		recorders[i%4].answered(false, d)
	}
	slices.Sort(all)
	h := collect(recorders, time.Second).Writes
	for _, q := range []float64{1, 50, 90, 99, 99.9, 100} {
		want := float64(all[int(math.Ceil(q/100*float64(len(all))))-1])
		if got := float64(h.ValueAtQuantile(q)); math.Abs(got-want) > want*0.002+1 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	Record(h, 24*time.Hour, 1)
	if got := time.Duration(h.Max()) * time.Microsecond; got < MaxLatency || h.TotalCount() != 50_001 {
		t.Errorf("a day was recorded as %v", got)
	}
}

func TestWorkloadRepeatsItself(t *testing.T) {
	w := withDefaults(Workload{Keys: 1000, Dist: Zipfian, Reads: 1, Writes: 1, Seed: 5, ValueSize: 50})
	make10 := func() []byte {
		g, err := newGenerator(w, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out []byte
		for range 10 {
			out = g.codec.append(out, g.next())
		}
		return out
	}
	if !bytes.Equal(make10(), make10()) {
		t.Error("the same workload made other requests")
	}
}

func TestCodecWritesWhatAServerReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := withDefaults(Workload{ValueSize: rapid.IntRange(1, 200_000).Draw(t, "size"), Prefix: rapid.StringN(1, 20, 40).Draw(t, "prefix")})
		o := op{key: rapid.Uint32().Draw(t, "key"), seq: rapid.Uint32().Draw(t, "seq"), read: rapid.Bool().Draw(t, "read")}
		c := newCodec(w)
		args, err := readCommand(bufio.NewReader(bytes.NewReader(c.append(nil, o))))
		if err != nil {
			t.Fatal(err)
		}
		if o.read {
			if len(args) != 2 || args[0] != "GET" {
				t.Fatalf("%.100q", args)
			}
			return
		}
		if len(args) != 3 || args[0] != "SET" || len(args[2]) != w.ValueSize {
			t.Fatalf("%.100q", args)
		}
		if seq, err := stamp([]byte(args[2])); w.ValueSize >= MinStampedValue && (err != nil || seq != o.seq) {
			t.Fatalf("stamp %d, %v, want %d", seq, err, o.seq)
		}
	})
}

func TestRepliesAcrossReads(t *testing.T) {
	stream := []byte("+OK\r\n$-1\r\n:12\r\n$5\r\nab\r\nc\r\n-ERR no\r\n$0\r\n\r\n")
	for _, r := range []io.Reader{bytes.NewReader(stream), iotest.OneByteReader(bytes.NewReader(stream)), iotest.DataErrReader(bytes.NewReader(stream))} {
		in := newReplies(r)
		for _, want := range []string{"+OK", "$nil", ":12", "$ab\r\nc", "-ERR no", "$"} {
			got, err := in.one()
			if err != nil {
				t.Fatal(err)
			}
			text := string(got.kind) + string(got.text)
			if got.null {
				text = "$nil"
			}
			if text != want {
				t.Errorf("reply %q, want %q", text, want)
			}
		}
		if _, err := in.one(); !errors.Is(err, io.EOF) {
			t.Errorf("end of stream: %v", err)
		}
	}
}

// endless never sends the end of a line.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '+'
	}
	return len(p), nil
}

func TestRepliesAreBounded(t *testing.T) {
	in := newReplies(endless{})
	if _, err := in.one(); !errors.Is(err, errProtocol) {
		t.Errorf("an endless line: %v", err)
	}
	if len(in.buf) > MaxReplyBytes {
		t.Errorf("%d bytes are held", len(in.buf))
	}
	for _, bad := range []string{"*1\r\n", "x\r\n", "\r\n", "\n", "$9223372036854775807\r\n", "$-2\r\n", "$x\r\n", "$1\r\nabc\r\n", "+OK\n", "%1\r\n"} {
		if _, err := newReplies(bytes.NewReader([]byte(bad))).one(); !errors.Is(err, errProtocol) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// However a stream is cut into reads, the replies are the same.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("+OK\r\n$-1\r\n:12\r\n$5\r\nab\r\nc\r\n-ERR no\r\n"))
	f.Add([]byte("$3\r\nab"))
	f.Add([]byte("$99999999999999999999\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		read := func(r io.Reader) (list []string) {
			in := newReplies(r)
			for {
				got, err := in.one()
				if err != nil {
					return list
				}
				list = append(list, string(got.kind)+string(got.text))
			}
		}
		whole, single := read(bytes.NewReader(stream)), read(iotest.OneByteReader(bytes.NewReader(stream)))
		if !slices.Equal(whole, single) {
			t.Errorf("%q in one read, %q byte by byte", whole, single)
		}
	})
}
