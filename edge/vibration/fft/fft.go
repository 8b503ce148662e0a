// Package fft is the discrete Fourier transform of windows of a power of two of
// samples: complex, forward and back, and of real samples. It is radix-4 after
// Stockham, whose output comes in order without a permutation, on real and
// imaginary parts apart, so that every pass runs over memory in a row.
//
// It knows neither windows nor spectra, and no other lengths. A plan holds its
// memory and is one goroutine's.
package fft

import (
	"fmt"
	"math"
)

// pass is one radix-4 pass over data of which size/4 groups of stride numbers
// are combined; the twiddles of group p are at 6*p: w, w², w³ as pairs.
type pass struct {
	quarter, stride int
	twiddles        []float64
}

// Complex is a plan for n complex numbers.
type Complex struct {
	n      int
	passes []pass
	last   bool // a radix-2 pass remains
	re, im []float64
}

// NewComplex plans for n numbers, a power of two from 1. It panics for another
// n, which is a mistake in the program.
func NewComplex(n int) *Complex {
	if n < 1 || n&(n-1) != 0 {
		panic(fmt.Sprintf("fft: %d is no power of two", n))
	}
	c := &Complex{n: n, re: make([]float64, n), im: make([]float64, n)}
	size, stride := n, 1
	for ; size >= 4; size, stride = size/4, stride*4 {
		p := pass{quarter: size / 4, stride: stride, twiddles: make([]float64, 6*(size/4))}
		for k := range p.quarter {
			for m := 1; m <= 3; m++ {
				sin, cos := math.Sincos(-2 * math.Pi * float64(m*k) / float64(size))
				p.twiddles[6*k+2*m-2], p.twiddles[6*k+2*m-1] = cos, sin
			}
		}
		c.passes = append(c.passes, p)
	}
	c.last = size == 2
	return c
}

// Forward replaces x by X[k] = Σ x[j] exp(-2πi jk/n). Both slices have n numbers.
func (c *Complex) Forward(re, im []float64) { c.transform(re, im) }

// Inverse replaces X by x[j] = Σ X[k] exp(+2πi jk/n), without dividing by n.
func (c *Complex) Inverse(re, im []float64) {
	// Real and imaginary part exchanged are the conjugate times i.
	c.transform(im, re)
}

func (c *Complex) transform(re, im []float64) {
	re, im = re[:c.n], im[:c.n]
	xr, xi, yr, yi := re, im, c.re, c.im
	for i := range c.passes {
		p := &c.passes[i]
		if p.stride == 1 {
			p.first(xr, xi, yr, yi)
		} else {
			p.run(xr, xi, yr, yi)
		}
		xr, xi, yr, yi = yr, yi, xr, xi
	}
	if c.last {
		half := c.n / 2
		ar, br, ai, bi := xr[:half], xr[half:], xi[:half], xi[half:]
		sr, dr, si, di := yr[:half], yr[half:], yi[:half], yi[half:]
		br, ai, bi, sr, dr, si, di = br[:len(ar)], ai[:len(ar)], bi[:len(ar)], sr[:len(ar)], dr[:len(ar)], si[:len(ar)], di[:len(ar)]
		for q := range ar {
			a, b := ar[q], br[q]
			sr[q], dr[q] = a+b, a-b
			a, b = ai[q], bi[q]
			si[q], di[q] = a+b, a-b
		}
		xr, xi = yr, yi
	}
	if &xr[0] != &re[0] {
		copy(re, xr)
		copy(im, xi)
	}
}

// first is a pass of stride 1.
func (p *pass) first(xr, xi, yr, yi []float64) {
	m := p.quarter
	ar, br, cr, dr := xr[:m], xr[m:2*m], xr[2*m:3*m], xr[3*m:4*m]
	ai, bi, ci, di := xi[:m], xi[m:2*m], xi[2*m:3*m], xi[3*m:4*m]
	tw := p.twiddles
	for k := 0; k < m && k < len(ar) && k < len(br) && k < len(cr) && k < len(dr) && k < len(ai) && k < len(bi) && k < len(ci) && k < len(di); k++ {
		w := tw[6*k : 6*k+6 : 6*k+6]
		or, oi := yr[4*k:4*k+4:4*k+4], yi[4*k:4*k+4:4*k+4]
		acr, aci, sr, si := ar[k]+cr[k], ai[k]+ci[k], ar[k]-cr[k], ai[k]-ci[k]
		bdr, bdi, tr, ti := br[k]+dr[k], bi[k]+di[k], br[k]-dr[k], bi[k]-di[k]
		or[0], oi[0] = acr+bdr, aci+bdi
		er, ei := sr+ti, si-tr
		or[1], oi[1] = er*w[0]-ei*w[1], er*w[1]+ei*w[0]
		er, ei = acr-bdr, aci-bdi
		or[2], oi[2] = er*w[2]-ei*w[3], er*w[3]+ei*w[2]
		er, ei = sr-ti, si+tr
		or[3], oi[3] = er*w[4]-ei*w[5], er*w[5]+ei*w[4]
	}
}

func (p *pass) run(xr, xi, yr, yi []float64) {
	m, s := p.quarter, p.stride
	for k := range m {
		w := p.twiddles[6*k : 6*k+6 : 6*k+6]
		w1r, w1i, w2r, w2i, w3r, w3i := w[0], w[1], w[2], w[3], w[4], w[5]
		at := k * s
		ar, br, cr, dr := xr[at:at+s], xr[at+s*m:][:s], xr[at+2*s*m:][:s], xr[at+3*s*m:][:s]
		ai, bi, ci, di := xi[at:at+s], xi[at+s*m:][:s], xi[at+2*s*m:][:s], xi[at+3*s*m:][:s]
		or, oi := yr[4*at:][:4*s], yi[4*at:][:4*s]
		o0r, o1r, o2r, o3r := or[:s], or[s:][:s], or[2*s:][:s], or[3*s:][:s]
		o0i, o1i, o2i, o3i := oi[:s], oi[s:][:s], oi[2*s:][:s], oi[3*s:][:s]
		n := len(ar)
		br, cr, dr, ai, bi, ci, di = br[:n], cr[:n], dr[:n], ai[:n], bi[:n], ci[:n], di[:n]
		o0r, o1r, o2r, o3r, o0i, o1i, o2i, o3i = o0r[:n], o1r[:n], o2r[:n], o3r[:n], o0i[:n], o1i[:n], o2i[:n], o3i[:n]
		for q := range n {
			a, c := ar[q], cr[q]
			acr, sr := a+c, a-c
			a, c = ai[q], ci[q]
			aci, si := a+c, a-c
			b, d := br[q], dr[q]
			bdr, tr := b+d, b-d
			b, d = bi[q], di[q]
			bdi, ti := b+d, b-d
			o0r[q], o0i[q] = acr+bdr, aci+bdi
			er, ei := sr+ti, si-tr
			o1r[q], o1i[q] = er*w1r-ei*w1i, er*w1i+ei*w1r
			er, ei = acr-bdr, aci-bdi
			o2r[q], o2i[q] = er*w2r-ei*w2i, er*w2i+ei*w2r
			er, ei = sr-ti, si+tr
			o3r[q], o3i[q] = er*w3r-ei*w3i, er*w3i+ei*w3r
		}
	}
}

// Real is a plan for n real samples.
type Real struct {
	n        int
	half     *Complex
	re, im   []float64
	twiddles []float64 // exp(-2πi k/n) for k to n/4, as pairs
}

// NewReal plans for n samples, a power of two from 4. It panics for another n.
func NewReal(n int) *Real {
	if n < 4 || n&(n-1) != 0 {
		panic(fmt.Sprintf("fft: %d is no power of two from 4", n))
	}
	r := &Real{n: n, half: NewComplex(n / 2), re: make([]float64, n/2), im: make([]float64, n/2), twiddles: make([]float64, 2*(n/4+1))}
	for k := range n/4 + 1 {
		sin, cos := math.Sincos(-2 * math.Pi * float64(k) / float64(n))
		r.twiddles[2*k], r.twiddles[2*k+1] = cos, sin
	}
	return r
}

// Transform writes X[k] = Σ x[j] exp(-2πi jk/n) for k from 0 to n/2: re and im have
// n/2+1 numbers. x stays as it is.
func (r *Real) Transform(re, im, x []float64) {
	m := r.n / 2
	x, re, im = x[:2*m], re[:m+1], im[:m+1]
	zr, zi := r.re[:m], r.im[:m]
	for k := 0; k < len(zr) && k < len(zi) && 2*k+2 <= len(x); k++ {
		v := x[2*k : 2*k+2 : 2*k+2]
		zr[k], zi[k] = v[0], v[1]
	}
	r.half.transform(zr, zi)
	// Even and odd samples were transformed as one; their spectra are told apart by
	// symmetry (Press et al., Numerical Recipes, 3rd ed., 12.3.2).
	re[0], im[0] = zr[0]+zi[0], 0
	re[m], im[m] = zr[0]-zi[0], 0
	// From both ends to the middle; the slices say that indices are in bounds.
	h := m / 2
	tw := r.twiddles[: 2*h+2 : 2*h+2]
	ar, ai, br, bi := zr[:h+1], zi[:h+1], zr[h:m], zi[h:m]
	for k := 1; k <= h; k++ {
		wr, wi := tw[2*k], tw[2*k+1]
		cr, ci := br[len(br)-k], bi[len(bi)-k]
		er, ei := 0.5*(ar[k]+cr), 0.5*(ai[k]-ci)
		or, oi := 0.5*(ai[k]+ci), 0.5*(cr-ar[k])
		tr, ti := or*wr-oi*wi, or*wi+oi*wr
		re[k], im[k] = er+tr, ei+ti
		re[m-k], im[m-k] = er-tr, ti-ei
	}
}
