package report

import (
	"math"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Quantiles are three points of a distribution of times, in milliseconds. All are zero when nothing was recorded.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// QuantilesOf reads the quantiles of a histogram whose values are microseconds. A nil histogram has none.
func QuantilesOf(h *hdrhistogram.Histogram) Quantiles {
	if h == nil || h.TotalCount() == 0 {
		return Quantiles{}
	}
	return Quantiles{
		P50: Micros(h.ValueAtQuantile(50)),
		P99: Micros(h.ValueAtQuantile(99)),
		Max: Micros(h.Max()),
	}
}

// Micros turns microseconds into milliseconds.
func Micros(us int64) float64 { return float64(us) / 1000 }

// DurationMillis turns d into milliseconds, rounded to a microsecond.
func DurationMillis(d time.Duration) float64 { return math.Round(float64(d)/1000) / 1000 }

// Millis writes a time in milliseconds with three significant digits, as tables show it: 0.123, 4.56, 78.9, 1234.
func Millis(ms float64) string {
	switch {
	case ms < 9.995:
		digits := 2
		if ms < 0.9995 {
			digits = 3
		}
		return strconv.FormatFloat(ms, 'f', digits, 64)
	case ms < 99.95:
		return strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return strconv.FormatFloat(ms, 'f', 0, 64)
}

// Bytes writes a size with a binary unit and three significant digits: 0 B, 512 B, 1.50 KiB, 23.4 MiB.
func Bytes(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, unit := float64(n), 0
	for v >= 1023.5 && unit < 6 {
		v /= 1024
		unit++
	}
	digits := 2
	if v >= 99.95 {
		digits = 0
	} else if v >= 9.995 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + "KMGTPE"[unit-1:unit] + "iB"
}
