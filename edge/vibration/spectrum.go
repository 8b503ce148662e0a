package vibration

import (
	"math"

	"gonum.org/v1/gonum/dsp/fourier"
)

// analyser holds the plans and the memory of one window length; it is used
// again for every window.
type analyser struct {
	n      int
	hann   []float64 // periodic
	s2     float64   // sum of its squares
	real   *fourier.FFT
	cmplx  *fourier.CmplxFFT
	x, win []float64
	half   []complex128 // of the real transforms
	full   []complex128 // analytic signal of the envelope's band
	power  []float64    // mean square of each line of the signal
	env    []float64    // power of each line of the squared envelope
}

func newAnalyser(n int) *analyser {
	a := &analyser{
		n: n, hann: make([]float64, n), real: fourier.NewFFT(n), cmplx: fourier.NewCmplxFFT(n),
		x: make([]float64, n), win: make([]float64, n),
		half: make([]complex128, n/2+1), full: make([]complex128, n), power: make([]float64, n/2+1), env: make([]float64, n/2+1),
	}
	for i := range a.hann {
		a.hann[i] = 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(n))
		a.s2 += a.hann[i] * a.hann[i]
	}
	return a
}

// moments are those of a window with its mean removed; centred is written.
func moments(x, centred []float64) (rms, peak, kurtosis float64) {
	n := float64(len(x))
	mean := 0.0
	for _, v := range x {
		mean += v
	}
	mean /= n
	var m2, m4 float64
	for i, v := range x {
		d := v - mean
		centred[i] = d
		m2 += d * d
		m4 += d * d * d * d
		peak = max(peak, math.Abs(d))
	}
	m2, m4 = m2/n, m4/n
	return math.Sqrt(m2), peak, m4 / (m2 * m2)
}

// spectrum writes the mean square of each line of the windowed signal, so that
// the lines of a band add up to the band's mean square.
func (a *analyser) spectrum(x []float64, into []float64) {
	for i, v := range x {
		a.win[i] = v * a.hann[i]
	}
	a.half = a.real.Coefficients(a.half, a.win)
	scale := 2 / (float64(a.n) * a.s2)
	for k, c := range a.half {
		into[k] = scale * (real(c)*real(c) + imag(c)*imag(c))
	}
	into[0] /= 2
	into[len(into)-1] /= 2
}

// envelope writes the spectrum of the squared envelope of a band: the one-sided
// part of the signal's transform is its analytic signal, whose squared
// magnitude is the envelope's square (Randall and Antoni, 2011).
func (a *analyser) envelope(x []float64, lowLine, highLine int) {
	a.half = a.real.Coefficients(a.half, x)
	clear(a.full)
	for k := lowLine; k <= highLine; k++ {
		a.full[k] = 2 * a.half[k]
	}
	a.full = a.cmplx.Sequence(a.full, a.full)
	mean := 0.0
	scale := 1 / (float64(a.n) * float64(a.n))
	for i, c := range a.full {
		a.x[i] = scale * (real(c)*real(c) + imag(c)*imag(c))
		mean += a.x[i]
	}
	mean /= float64(a.n)
	for i := range a.x {
		a.x[i] -= mean
	}
	a.spectrum(a.x, a.env)
}

// band adds up the lines of [low, high] Hz; a line that stands over an edge
// counts with the part that lies inside, so that bands side by side add up.
func band(lines []float64, hz, low, high float64) float64 {
	last := len(lines) - 1
	from, to := max(int(math.Floor(low/hz-0.5)), 0), min(int(math.Ceil(high/hz+0.5)), last)
	sum := 0.0
	for k := from; k <= to; k++ {
		a, b := (float64(k)-0.5)*hz, (float64(k)+0.5)*hz
		if part := (min(b, high) - max(a, low)) / hz; part > 0 {
			sum += part * lines[k]
		}
	}
	return sum
}
