package vibration

import (
	"math"

	"github.com/headrace/headrace/edge/vibration/fft"
)

// plans are the transforms by length, made once; they and their memory are used
// again for every window.
type plans struct {
	real    map[int]*fft.Real
	complex map[int]*fft.Complex
}

func (p *plans) realOf(n int) *fft.Real {
	r := p.real[n]
	if r == nil {
		r = fft.NewReal(n)
		p.real[n] = r
	}
	return r
}

func (p *plans) complexOf(n int) *fft.Complex {
	c := p.complex[n]
	if c == nil {
		c = fft.NewComplex(n)
		p.complex[n] = c
	}
	return c
}

// analyser holds the memory in which windows are looked at.
type analyser struct {
	plans
	re, im  []float64 // of a transform, lines 0 to n/2
	br, bi  []float64 // the analytic signal of the envelope's band
	squared []float64 // the squared envelope
	power   []float64 // mean square of each line of the signal
	env     []float64 // the same of the squared envelope
	angular []float64 // samples by angle
	byOrder []float64 // mean square of each line of those
	centred []float64
}

// lines are mean squares, step apart: in Hz, or in orders.
type lines struct {
	v    []float64
	step float64
}

// moments are those of a window with its mean removed.
type moments struct{ m2, m3, m4, peak, span float64 }

// centre writes x without its mean, and tells its moments.
func centre(x, centred []float64) (m moments) {
	n := float64(len(x))
	centred = centred[:len(x)]
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(x); i += 4 {
		v := x[i : i+4 : i+4]
		s0, s1, s2, s3 = s0+v[0], s1+v[1], s2+v[2], s3+v[3]
	}
	for ; i < len(x); i++ {
		s0 += x[i]
	}
	mean := (s0 + s1 + s2 + s3) / n
	low, high := x[0], x[0]
	// Two sums of each, so that one does not wait for the other.
	var a2, a3, a4, b2, b3, b4 float64
	for i = 0; i+2 <= len(x); i += 2 {
		v, w := x[i:i+2:i+2], centred[i:i+2:i+2]
		c, d := v[0], v[1]
		if c < low {
			low = c
		}
		if c > high {
			high = c
		}
		if d < low {
			low = d
		}
		if d > high {
			high = d
		}
		c, d = c-mean, d-mean
		w[0], w[1] = c, d
		cc, dd := c*c, d*d
		a2, b2 = a2+cc, b2+dd
		a3, b3 = a3+cc*c, b3+dd*d
		a4, b4 = a4+cc*cc, b4+dd*dd
	}
	m = moments{m2: (a2 + b2) / n, m3: (a3 + b3) / n, m4: (a4 + b4) / n, peak: max(high-mean, mean-low), span: high - low}
	return m
}

// hann writes the mean square of each line of a signal under a periodic Hann
// window, from its transform without one, so that the lines of a band add up to
// the band's mean square. The window is a convolution with -¼, ½, -¼ (Harris, On
// the use of windows for harmonic analysis with the DFT, 1978).
func hann(re, im []float64, n int, scale float64, into []float64) {
	last := len(into) - 1
	half := n / 2
	re, im = re[:half+1], im[:half+1]
	// c/(n·Σw²) with Σw² = 3n/8, and c = 2 but for the first and the last line.
	scale *= 2 / (0.375 * float64(n) * float64(n))
	d := 0.5 * (re[0] - re[1])
	into[0] = scale / 2 * d * d
	end := min(last, half-1)
	a, b := re[0], re[1]
	e, f := im[0], im[1]
	rn, in, out := re[2:], im[2:], into[1:end+1]
	for k := range out {
		c, g := rn[k], in[k]
		x, y := 0.5*b-0.25*(a+c), 0.5*f-0.25*(e+g)
		out[k] = scale * (x*x + y*y)
		a, b, e, f = b, c, f, g
	}
	if last >= half {
		d = 0.5 * (re[half] - re[half-1])
		into[half] = scale / 2 * d * d
	}
}

// transform puts the plain transform of x into re and im.
func (a *analyser) transform(x []float64) {
	n := len(x)
	a.re, a.im = sized(a.re, n/2+1), sized(a.im, n/2+1)
	a.realOf(n).Transform(a.re, a.im, x)
}

// spectrum is that of the signal that was last transformed, n samples step Hz
// apart in lines, up to a line.
func (a *analyser) spectrum(n, last int) []float64 {
	a.power = sized(a.power, min(last, n/2)+1)
	hann(a.re, a.im, n, 1, a.power)
	return a.power
}

// orders is the spectrum of x by angle.
func (s *Stage) orders(sp *shaftSpeed, x []float64, dt float64) lines {
	a := &s.analyser
	a.angular = sized(a.angular, 2*len(x))
	turns := s.resample(sp, x, dt, a.angular)
	a.transform(a.angular)
	a.re[0] = 0 // the mean by angle is another than by time
	a.byOrder = sized(a.byOrder, len(x)+1)
	hann(a.re, a.im, len(a.angular), 1, a.byOrder)
	return lines{a.byOrder, 1 / turns}
}

// envelope is the squared envelope of the lines from low to high of the signal of
// n samples that was last transformed: their one-sided part is the analytic signal,
// whose squared magnitude is the squared envelope (Randall and Antoni, 2011). Moved
// to frequency 0 they keep it, and need only as many samples as the lines of the
// result up to want do: what folds back lies above. The samples are spread evenly
// over the window.
func (a *analyser) envelope(n, low, high, want int) []float64 {
	m := minWindow
	for m < n && (m < high-low+want+3 || m < 2*(want+2)) {
		m *= 2
	}
	a.br, a.bi, a.squared = sized(a.br, m), sized(a.bi, m), sized(a.squared, m)
	count := high - low + 1
	copy(a.br, a.re[low:high+1])
	copy(a.bi, a.im[low:high+1])
	clear(a.br[count:])
	clear(a.bi[count:])
	a.complexOf(m).Inverse(a.br, a.bi)
	scale := 4 / (float64(n) * float64(n))
	br, bi, out := a.br, a.bi[:len(a.br)], a.squared[:len(a.br)]
	for i, re := range br {
		out[i] = scale * (re*re + bi[i]*bi[i])
	}
	return out
}

// envelopeSpectrum is that of the squared envelope, without its mean, up to a line.
func (a *analyser) envelopeSpectrum(squared []float64, last int) []float64 {
	m := len(squared)
	a.transform(squared)
	a.re[0] = 0
	a.env = sized(a.env, min(last, m/2)+1)
	hann(a.re, a.im, m, 1, a.env)
	return a.env
}

// lineAfter is the first line that a band up to high does not touch; many for what
// is no number.
func lineAfter(high, step float64) int {
	const many = 1 << 30
	if at := math.Ceil(high/step + 0.5); at < many {
		return int(at)
	}
	return many
}
