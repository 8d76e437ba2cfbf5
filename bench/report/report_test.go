package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTableAlignsFiguresRight(t *testing.T) {
	tab := NewTable("policy", "lag p99 ms", "note")
	tab.Row("common", Millis(1.5), "")
	tab.Row("lów", ">10000", "starved")
	tab.Row("idle", "-")
	var b bytes.Buffer
	if err := tab.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"policy  lag p99 ms  note",
		"──────  ──────────  ───────",
		"common        1.50",
		"lów         >10000  starved",
		"idle             -",
		"",
	}, "\n")
	if b.String() != want {
		t.Errorf("table:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestMillisKeepsThreeDigits(t *testing.T) {
	for ms, want := range map[float64]string{
		0: "0.000", 0.1234: "0.123", 0.9996: "1.00", 1: "1.00", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 12345.6: "12346",
	} {
		if got := Millis(ms); got != want {
			t.Errorf("Millis(%v) = %s, want %s", ms, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 1 << 20: "1.00 MiB", 1<<20 - 1: "1.00 MiB", 250 << 30: "250 GiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	if q := QuantilesOf(nil); q != (Quantiles{}) {
		t.Errorf("quantiles of nothing: %+v", q)
	}
	h := hdrhistogram.New(1, 1e9, 3)
	for i := int64(1); i <= 1000; i++ {
		_ = h.RecordValue(i)
	}
	if q := QuantilesOf(h); q != (Quantiles{P50: 0.5, P99: 0.99, Max: 1}) {
		t.Errorf("quantiles of 1..1000 us: %+v", q)
	}
	if got := DurationMillis(1234567 * time.Nanosecond); got != 1.235 {
		t.Errorf("DurationMillis = %v", got)
	}
}

func TestWriteJSONReplacesWholeFileOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.json")
	doc := Document{Config: map[string]int{"qps": 1}, Machine: ThisMachine(dir), Results: []int{1, 2}}
	if err := WriteJSON(path, doc); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(before, &keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"config", "machine", "results"} {
		if keys[k] == nil {
			t.Errorf("key %q is missing", k)
		}
	}
	if err := WriteJSON(path, func() {}); err == nil {
		t.Error("a function was written as JSON")
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("a failed report harmed the earlier one: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if err := WriteJSON(filepath.Join(dir, "none", "x.json"), doc); err == nil || !strings.Contains(err.Error(), "x.json") {
		t.Errorf("error does not name the file: %v", err)
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine(t.TempDir())
	if m.CPUs < 1 || m.GOMAXPROCS < 1 || m.OS != runtime.GOOS || m.Go == "" {
		t.Errorf("machine: %+v", m)
	}
	if runtime.GOOS == "linux" && (m.Kernel == "" || m.MemoryBytes == 0 || m.Filesystem == "") {
		t.Errorf("linux tells more than this: %+v", m)
	}
}

func TestProgressLines(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, 2)
	p.Step("first %d", 1)
	p.Note("kept")
	p.Step("second")
	p.Step("beyond")
	p.Close()
	for _, want := range []string{"[1/2] first 1\n", "kept\n", "[2/2] second\n", "[2/2] beyond\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	none := NewProgress(nil, 3)
	var wg sync.WaitGroup
	wg.Go(func() { none.Step("x"); none.Note("y") })
	wg.Wait()
	none.Close()
}
