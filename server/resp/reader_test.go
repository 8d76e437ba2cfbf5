package resp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readAll returns every request of the stream, as strings, and how the stream ended.
func readAll(r *Reader) (requests [][]string, err error) {
	for {
		args, ok, err := r.Next()
		if err != nil {
			return requests, err
		}
		if !ok {
			if err := r.Fill(); err != nil {
				return requests, err
			}
			continue
		}
		var words []string
		for _, a := range args {
			words = append(words, string(a))
		}
		requests = append(requests, words)
	}
}

func TestRequests(t *testing.T) {
	tests := map[string]struct {
		in   string
		want [][]string
		kind ErrorKind // when bad
		bad  bool
	}{
		"array":                 {in: "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", want: [][]string{{"GET", "a"}}},
		"pipeline":              {in: "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", want: [][]string{{"PING"}, {"PING"}}},
		"empty argument":        {in: "*2\r\n$3\r\nGET\r\n$0\r\n\r\n", want: [][]string{{"GET", ""}}},
		"binary argument":       {in: "*2\r\n$1\r\na\r\n$4\r\n\r\n\x00\xff\r\n", want: [][]string{{"a", "\r\n\x00\xff"}}},
		"empty arrays":          {in: "*0\r\n*-1\r\n*-5\r\nPING\r\n", want: [][]string{{"PING"}}},
		"inline":                {in: "SET a 1\r\nGET a\n", want: [][]string{{"SET", "a", "1"}, {"GET", "a"}}},
		"inline spaces":         {in: " \t SET   a\t1  \r\n\r\n\n", want: [][]string{{"SET", "a", "1"}}},
		"inline quotes":         {in: `SET "a b" 'it\'s' "\x41\n\q\"" ""` + "\n", want: [][]string{{"SET", "a b", "it's", "A\nq\"", ""}}},
		"inline quote inside":   {in: `a"b c"` + "\n", want: [][]string{{"ab c"}}},
		"inline then array":     {in: "PING\r\n*1\r\n$4\r\nPING\r\n", want: [][]string{{"PING"}, {"PING"}}},
		"open quote":            {in: "GET \"a\r\n", bad: true, kind: BadQuotes},
		"text after quote":      {in: "GET \"a\"b\r\n", bad: true, kind: BadQuotes},
		"escape at end":         {in: "GET \"a\\\r\n", bad: true, kind: BadQuotes},
		"count 2^63-1":          {in: "*9223372036854775807\r\n", bad: true, kind: BadCount},
		"count 2^64":            {in: "*18446744073709551616\r\n", bad: true, kind: BadCount},
		"count too great":       {in: "*1048577\r\n", bad: true, kind: BadCount},
		"count empty":           {in: "*\r\n", bad: true, kind: BadCount},
		"count word":            {in: "*abc\r\n", bad: true, kind: BadCount},
		"count plus":            {in: "*+1\r\n", bad: true, kind: BadCount},
		"count leading zero":    {in: "*01\r\n", bad: true, kind: BadCount},
		"count minus zero":      {in: "*-0\r\n", bad: true, kind: BadCount},
		"count endless":         {in: "*" + strings.Repeat("1", 100), bad: true, kind: LongHeader},
		"count lf":              {in: "*1\r$", bad: true, kind: BadEnd},
		"length 2^63-1":         {in: "*1\r\n$9223372036854775807\r\n", bad: true, kind: BadLength},
		"length 2^63-1 in set":  {in: "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$9223372036854775807\r\n", bad: true, kind: BadLength},
		"length too great":      {in: "*1\r\n$8388609\r\n", bad: true, kind: BadLength},
		"length negative":       {in: "*1\r\n$-1\r\n", bad: true, kind: BadLength},
		"length empty":          {in: "*1\r\n$\r\n", bad: true, kind: BadLength},
		"no dollar":             {in: "*1\r\n:5\r\n", bad: true, kind: BadType},
		"no dollar, high byte":  {in: "*1\r\n\xff5\r\n", bad: true, kind: BadType},
		"argument too long":     {in: "*1\r\n$1\r\nab\r\n", bad: true, kind: BadEnd},
		"good then bad":         {in: "PING\n*1\r\n!", want: [][]string{{"PING"}}, bad: true, kind: BadType},
		"array inside an array": {in: "*2\r\n*1\r\n$1\r\na\r\n", bad: true, kind: BadType},
		"long inline":           {in: strings.Repeat("x", 64<<10+1), bad: true, kind: LongInline},
		"long inline ended":     {in: strings.Repeat("x", 64<<10+2) + "\n", bad: true, kind: LongInline},
		"longest inline":        {in: strings.Repeat("x", 64<<10) + "\r\n", want: [][]string{{strings.Repeat("x", 64<<10)}}},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":    func(r io.Reader) io.Reader { return r },
		"one byte": iotest.OneByteReader,
		"half":     iotest.HalfReader,
		"data err": iotest.DataErrReader,
	}
	for name, test := range tests {
		for how, wrap := range readers {
			t.Run(name+"/"+how, func(t *testing.T) {
				r := NewReader(wrap(strings.NewReader(test.in)), Limits{}, nil)
				got, err := readAll(r)
				if !equal(got, test.want) {
					t.Errorf("requests %q, want %q", got, test.want)
				}
				var bad *ProtocolError
				if test.bad {
					if !errors.As(err, &bad) || bad.Kind != test.kind {
						t.Errorf("error %v, want kind %v", err, test.kind)
					}
					if _, _, again := r.Next(); again != err {
						t.Errorf("the error did not stay: %v", again)
					}
				} else if err != io.EOF {
					t.Errorf("error %v, want EOF", err)
				}
			})
		}
	}
}

func equal(a, b [][]string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if strings.Join(a[i], "\x01") != strings.Join(b[i], "\x01") || len(a[i]) != len(b[i]) {
			return false
		}
	}
	return true
}

func TestLimitsBeforeAuth(t *testing.T) {
	for in, want := range map[string]string{
		"*11\r\n":          "ERR Protocol error: unauthenticated multibulk length",
		"*1\r\n$16385\r\n": "ERR Protocol error: unauthenticated bulk length",
	} {
		_, err := readAll(NewReader(strings.NewReader(in), BeforeAuth(), nil))
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
	// What a client may send before it authenticates must fit.
	longest := AppendCommand(nil, bytes.Split(bytes.Repeat(append(bytes.Repeat([]byte("x"), 16<<10), ' '), 10), []byte(" "))[:10]...)
	got, err := readAll(NewReader(bytes.NewReader(longest), BeforeAuth(), nil))
	if err != io.EOF || len(got) != 1 || len(got[0]) != 10 {
		t.Errorf("%d requests, %v", len(got), err)
	}
}

// endless repeats its text for ever and counts what it gave.
type endless struct {
	text string
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], e.text[e.n%len(e.text):])
		n += c
		e.n += c
	}
	return n, nil
}

func TestRequestLimitBoundsMemory(t *testing.T) {
	limits := Limits{MaxBulkBytes: 1 << 16, MaxArgs: 1 << 20, MaxRequestBytes: 1 << 18}
	stream := io.MultiReader(strings.NewReader("*1000000\r\n"), &endless{text: "$1000\r\n" + strings.Repeat("x", 1000) + "\r\n"})
	r := NewReader(stream, limits, nil)
	_, err := readAll(r)
	var bad *ProtocolError
	if !errors.As(err, &bad) || bad.Kind != LongRequest {
		t.Fatalf("error %v", err)
	}
	if held := len(r.buf); held > limits.MaxRequestBytes+keepBuffer {
		t.Errorf("buffer of %d bytes", held)
	}
}

// A claim takes no memory; what arrives takes at most twice its size.
func TestClaimsTakeNoMemory(t *testing.T) {
	sent := 100 << 10
	in := "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8388608\r\n" + strings.Repeat("x", sent)
	r := NewReader(strings.NewReader(in), Limits{}, nil)
	if _, err := readAll(r); err != io.EOF {
		t.Fatal(err)
	}
	if len(r.buf) > 2*(sent+keepBuffer) {
		t.Errorf("a buffer of %d bytes for %d", len(r.buf), sent)
	}
	r = NewReader(strings.NewReader("*1048576\r\n$1\r\na\r\n"), Limits{}, nil)
	if _, err := readAll(r); err != io.EOF {
		t.Fatal(err)
	}
	if len(r.buf) > baseBuffer || cap(r.args)+cap(r.spans) > 64 {
		t.Errorf("%d bytes, %d arguments held for a claim", len(r.buf), cap(r.args)+cap(r.spans))
	}
}

func TestIdleReaderHoldsLittle(t *testing.T) {
	big := AppendCommand(nil, []byte("SET"), []byte("a"), bytes.Repeat([]byte("v"), 5<<20))
	many := make([][]byte, 100_000)
	for i := range many {
		many[i] = []byte("k")
	}
	budget := NewBudget(1 << 30)
	in := append(big, AppendCommand(nil, many...)...)
	r := NewReader(bytes.NewReader(in), Limits{}, budget)
	got, err := readAll(r)
	if err != io.EOF || len(got) != 2 || len(got[0][2]) != 5<<20 || len(got[1]) != len(many) {
		t.Fatalf("%d requests, %v", len(got), err)
	}
	if len(r.buf) > keepBuffer || cap(r.args) > keepArgs || cap(r.spans) > keepArgs {
		t.Errorf("holds %d bytes, %d arguments, %d spans", len(r.buf), cap(r.args), cap(r.spans))
	}
	if used := budget.Used(); used != held(r) {
		t.Errorf("budget says %d, %d held", used, held(r))
	}
	r.Close()
	if used := budget.Used(); used != 0 {
		t.Errorf("budget says %d after Close", used)
	}
}

// held is what the arrays of r take beyond its base, in bytes.
func held(r *Reader) int64 {
	return int64(len(r.buf) - baseBuffer + 16*max(0, cap(r.spans)-baseArgs) + 24*max(0, r.argsRoom-baseArgs))
}

// Many short arguments take more memory for keeping count of them than for their bytes.
func TestBudgetCoversArguments(t *testing.T) {
	const n = 1_000_000
	unfinished := "*1000000\r\n" + strings.Repeat("$1\r\na\r\n", n-1)
	for name, in := range map[string]string{
		"unfinished": unfinished,
		"finished":   unfinished + "$1\r\na\r\n",
		"pipeline":   strings.Repeat("*1\r\n$1\r\na\r\n", 20_000),
		"inline":     strings.Repeat("a ", 30_000) + "\n",
		"lines":      strings.Repeat("a\n", 60_000),
	} {
		t.Run(name, func(t *testing.T) {
			budget := NewBudget(1 << 30)
			r := NewReader(strings.NewReader(in), Limits{}, budget)
			for {
				_, ok, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				if used := budget.Used(); used != held(r) {
					t.Fatalf("budget says %d, %d held", used, held(r))
				}
				if ok {
					continue
				}
				if err := r.Fill(); err != nil {
					break
				}
			}
			if name == "unfinished" && budget.Used() < int64(len(in)+16*n) {
				t.Errorf("budget says %d for %d arguments", budget.Used(), n)
			}
			r.Close()
			if used := budget.Used(); used != 0 {
				t.Errorf("budget says %d after Close", used)
			}
		})
	}
}

// Spans and arguments must each be refused when there is no room for them.
func TestBudgetRefusesArguments(t *testing.T) {
	const n = 100_000
	in := "*100000\r\n" + strings.Repeat("$1\r\na\r\n", n)
	budget := NewBudget(1 << 30)
	r := NewReader(strings.NewReader(in), Limits{}, budget)
	for ok := false; !ok; {
		var err error
		if _, ok, err = r.Next(); err != nil {
			t.Fatal(err)
		}
		if !ok {
			if err := r.Fill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	needed := budget.Used()
	refused := map[string]bool{}
	for limit := int64(1 << 10); limit < needed; limit += needed / 50 {
		budget := NewBudget(limit)
		r := NewReader(strings.NewReader(in), Limits{}, budget)
		_, err := readAll(r)
		var bad *ProtocolError
		if !errors.As(err, &bad) || bad.Kind != NoMemory {
			t.Fatalf("limit %d: %v", limit, err)
		}
		switch {
		case len(r.spans) == n:
			refused["args"] = true
		default:
			refused["spans"] = true
		}
		if used := budget.Used(); used > limit || used != held(r) {
			t.Errorf("limit %d: budget says %d, %d held", limit, used, held(r))
		}
		r.Close()
		if used := budget.Used(); used != 0 {
			t.Errorf("limit %d: budget says %d after Close", limit, used)
		}
	}
	if len(refused) != 2 {
		t.Errorf("refused were only %v", refused)
	}
}

func TestBudgetRefuses(t *testing.T) {
	budget := NewBudget(32 << 10)
	in := AppendCommand(nil, []byte("SET"), []byte("a"), bytes.Repeat([]byte("v"), 64<<10))
	_, err := readAll(NewReader(bytes.NewReader(in), Limits{}, budget))
	var bad *ProtocolError
	if !errors.As(err, &bad) || bad.Kind != NoMemory {
		t.Fatalf("error %v", err)
	}
}

// An unauthenticated slow client must not make the reader scan its line again and again.
func TestInlineIsScannedOnce(t *testing.T) {
	r := NewReader(iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 5000))), Limits{}, nil)
	if _, err := readAll(r); err != io.EOF {
		t.Fatal(err)
	}
	if r.scanned != 5000 {
		t.Errorf("scanned %d", r.scanned)
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "*1\r\n$9223372036854775807\r\n", "SET a \"b c\"\r\n", "*-1\r\n*0\r\nPING\n", "*3\r\n$1\r\n", "*2147483648\r\n", "\"\\x4\n", "*1\r\n$0\r\n\r\n",
	} {
		f.Add([]byte(s), uint64(1))
	}
	limits := Limits{MaxBulkBytes: 1000, MaxArgs: 20, MaxInlineBytes: 500, MaxRequestBytes: 4000}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		// However the stream is cut, the same requests must come out.
		whole, errWhole := readAll(NewReader(bytes.NewReader(data), limits, nil))
		rng := rand.New(rand.NewPCG(seed, 0))
		r := NewReader(&cutter{data: data, rng: rng}, limits, nil)
		cut, errCut := readAll(r)
		if !equal(whole, cut) || errWhole.Error() != errCut.Error() {
			t.Fatalf("whole %q %v, cut %q %v", whole, errWhole, cut, errCut)
		}
		if len(r.buf) > limits.MaxRequestBytes+keepBuffer {
			t.Fatalf("buffer of %d bytes", len(r.buf))
		}
		for _, req := range whole {
			if len(req) == 0 || len(req) > limits.MaxArgs {
				t.Fatalf("%d arguments", len(req))
			}
			// What came out, sent as an array, comes out again.
			var args [][]byte
			for _, w := range req {
				args = append(args, []byte(w))
			}
			again, err := readAll(NewReader(bytes.NewReader(AppendCommand(nil, args...)), Limits{}, nil))
			if err != io.EOF || len(again) != 1 || !equal(again, [][]string{req}) {
				t.Fatalf("%q became %q, %v", req, again, err)
			}
		}
	})
}

// cutter gives its data in pieces of random size.
type cutter struct {
	data []byte
	rng  *rand.Rand
}

func (c *cutter) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.data[:min(len(c.data), 1+c.rng.IntN(9))])
	c.data = c.data[n:]
	return n, nil
}

func BenchmarkNext(b *testing.B) {
	one := AppendCommand(nil, []byte("SET"), []byte("key:000000000001"), bytes.Repeat([]byte("x"), 100))
	r := NewReader(&endless{text: string(bytes.Repeat(one, 16))}, Limits{}, nil)
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	for b.Loop() {
		for {
			_, ok, err := r.Next()
			if err != nil {
				b.Fatal(err)
			}
			if ok {
				break
			}
			if err := r.Fill(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
