package fft

import (
	"math"
	"math/cmplx"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/dsp/fourier"
	"pgregory.net/rapid"
)

func noise(n int, seed uint64) []float64 {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := make([]float64, n)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	return x
}

// far is the largest difference, against the largest line.
func far(re, im []float64, want []complex128) float64 {
	most, size := 0.0, 0.0
	for k, c := range want {
		most, size = max(most, cmplx.Abs(complex(re[k], im[k])-c)), max(size, cmplx.Abs(c))
	}
	return most / size
}

// All lengths against the sum that defines the transform, or gonum where that
// would take too long.
func TestComplex(t *testing.T) {
	for n := 1; n <= 1<<17; n *= 2 {
		re, im := noise(n, 1), noise(n, 2)
		x := make([]complex128, n)
		for i := range x {
			x[i] = complex(re[i], im[i])
		}
		want := make([]complex128, n)
		if n <= 256 {
			for k := range want {
				for j, v := range x {
					want[k] += v * cmplx.Rect(1, -2*math.Pi*float64(j*k%n)/float64(n))
				}
			}
		} else {
			fourier.NewCmplxFFT(n).Coefficients(want, x)
		}
		c := NewComplex(n)
		c.Forward(re, im)
		if d := far(re, im, want); d > 1e-13 {
			t.Errorf("%d: off by %v", n, d)
		}
		c.Inverse(re, im)
		for i := range x {
			x[i] *= complex(float64(n), 0)
		}
		if d := far(re, im, x); d > 1e-13 {
			t.Errorf("%d: and back: off by %v", n, d)
		}
	}
}

func TestReal(t *testing.T) {
	for n := 4; n <= 1<<17; n *= 2 {
		x := noise(n, uint64(n))
		re, im := make([]float64, n/2+1), make([]float64, n/2+1)
		r := NewReal(n)
		r.Transform(re, im, x)
		if d := far(re, im, fourier.NewFFT(n).Coefficients(nil, x)); d > 1e-13 {
			t.Errorf("%d: off by %v", n, d)
		}
		if n := testing.AllocsPerRun(10, func() { r.Transform(re, im, x) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// Energy stays (Parseval), and the transform of a sum is the sum.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := 1 << rapid.IntRange(2, 10).Draw(t, "log")
		x := rapid.SliceOfN(rapid.Float64Range(-1e3, 1e3), n, n).Draw(t, "x")
		y := noise(n, 5)
		r := NewReal(n)
		spectrum := func(x []float64) ([]float64, []float64) {
			re, im := make([]float64, n/2+1), make([]float64, n/2+1)
			r.Transform(re, im, x)
			return re, im
		}
		xr, xi := spectrum(x)
		yr, yi := spectrum(y)
		time, lines := 0.0, 0.0
		sum := make([]float64, n)
		for i, v := range x {
			time += v * v
			sum[i] = v + y[i]
		}
		sr, si := spectrum(sum)
		for k := range xr {
			c := 2.0
			if k == 0 || k == n/2 {
				c = 1
			}
			lines += c * (xr[k]*xr[k] + xi[k]*xi[k]) / float64(n)
			if d := cmplx.Abs(complex(sr[k]-xr[k]-yr[k], si[k]-xi[k]-yi[k])); d > 1e-9*float64(n) {
				t.Fatalf("line %d of the sum is off by %v", k, d)
			}
		}
		if math.Abs(time-lines) > 1e-10*(1+time) {
			t.Fatalf("energy %v, of the lines %v", time, lines)
		}
	})
}

func TestLengths(t *testing.T) {
	for _, n := range []int{0, -4, 3, 12} {
		for name, plan := range map[string]func(){"complex": func() { NewComplex(n) }, "real": func() { NewReal(n) }} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: %d was taken", name, n)
					}
				}()
				plan()
			}()
		}
	}
}

func BenchmarkReal(b *testing.B) {
	x := noise(8192, 1)
	re, im := make([]float64, 4097), make([]float64, 4097)
	r := NewReal(8192)
	b.ReportAllocs()
	for b.Loop() {
		r.Transform(re, im, x)
	}
}

func BenchmarkGonum(b *testing.B) {
	x := noise(8192, 1)
	out := make([]complex128, 4097)
	r := fourier.NewFFT(8192)
	for b.Loop() {
		r.Coefficients(out, x)
	}
}
