package load

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Distribution says how often each key is used.
type Distribution string

const (
	// Uniform uses every key as often as any other.
	Uniform Distribution = "uniform"
	// Zipfian uses the i-th key in proportion to 1/i^Theta.
	Zipfian Distribution = "zipfian"
)

// picker draws key numbers from 0 to n-1.
type picker interface{ pick(r *rand.Rand) uint32 }

func newPicker(d Distribution, n uint32, theta float64) (picker, error) {
	switch d {
	case Uniform:
		return uniform(n), nil
	case Zipfian:
		return newZipf(n, theta), nil
	}
	return nil, fmt.Errorf("key distribution %q: must be %q or %q", d, Uniform, Zipfian)
}

type uniform uint32

func (n uniform) pick(r *rand.Rand) uint32 { return r.Uint32N(uint32(n)) }

// zipf samples a bounded Zipf distribution of any positive exponent by rejection-inversion (Hörmann and Derflinger, 1996): no
// tables and no sum over all keys, fewer than 1.2 draws a sample on average.
type zipf struct {
	n        float64
	exponent float64
	hX1, hN  float64 // the integral of the hat function at both ends
	accept   float64 // below this distance a sample is inside without further tests
}

func newZipf(n uint32, exponent float64) *zipf {
	z := &zipf{n: float64(n), exponent: exponent}
	z.hX1 = z.integral(1.5) - 1
	z.hN = z.integral(z.n + 0.5)
	z.accept = 2 - z.integralInverse(z.integral(2.5)-z.density(2))
	return z
}

func (z *zipf) pick(r *rand.Rand) uint32 {
	for {
		u := z.hN + r.Float64()*(z.hX1-z.hN)
		x := z.integralInverse(u)
		k := min(max(math.Floor(x+0.5), 1), z.n)
		if k-x <= z.accept || u >= z.integral(k+0.5)-z.density(k) {
			return uint32(k) - 1
		}
	}
}

func (z *zipf) density(x float64) float64 { return math.Exp(-z.exponent * math.Log(x)) }

func (z *zipf) integral(x float64) float64 {
	l := math.Log(x)
	return expm1Over((1-z.exponent)*l) * l
}

func (z *zipf) integralInverse(x float64) float64 {
	t := max(x*(1-z.exponent), -1)
	return math.Exp(log1pOver(t) * x)
}

// log1pOver is log(1+x)/x, continued to 1 at 0.
func log1pOver(x float64) float64 {
	if math.Abs(x) > 1e-8 {
		return math.Log1p(x) / x
	}
	return 1 - x*(0.5-x*(1.0/3-x*0.25))
}

// expm1Over is (exp(x)-1)/x, continued to 1 at 0.
func expm1Over(x float64) float64 {
	if math.Abs(x) > 1e-8 {
		return math.Expm1(x) / x
	}
	return 1 + x*0.5*(1+x*(1.0/3)*(1+x*0.25))
}
