package workorder

import (
	"errors"
	"fmt"
	"html"
	"math"
	"math/cmplx"
	"strings"

	"gonum.org/v1/gonum/dsp/fourier"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// The band whose envelope is shown, in Hz; that of the features unless an edge
// is set up otherwise.
const (
	envelopeLow  = 2000.0
	envelopeHigh = 5500.0
)

const (
	pictureWidth, pictureHeight = 720.0, 260.0
	left, right, top, bottom    = 44.0, 12.0, 30.0, 34.0
)

// Spectrum draws the spectrum of a waveform's envelope over multiples of the
// shaft's speed, with the bearing's defect orders marked: a picture (SVG) that
// needs nothing else and runs no script.
func Spectrum(w *record.Waveform, rpm float64, b signal.Bearing, title string) ([]byte, error) {
	if rpm <= 0 {
		return nil, errors.New("drawing a spectrum: the shaft's speed is not known; give rpm in the registry")
	}
	x := w.Floats(nil)
	n := len(x)
	if n < 64 {
		return nil, fmt.Errorf("drawing a spectrum: %d samples are too few", n)
	}
	lines := envelopeSpectrum(x, w.Rate)
	hz, shaft := w.Rate/float64(n), rpm/60
	most := 1.15 * 3 * max(b.BPFI, 4) // orders
	var greatest float64
	var points []string
	for k := 1; k < len(lines) && float64(k)*hz/shaft <= most; k++ {
		greatest = max(greatest, lines[k])
	}
	px := func(order float64) float64 { return left + (pictureWidth-left-right)*order/most }
	py := func(v float64) float64 {
		return pictureHeight - bottom - (pictureHeight-top-bottom)*v/max(greatest, 1e-300)
	}
	for k := 1; k < len(lines) && float64(k)*hz/shaft <= most; k++ {
		points = append(points, fmt.Sprintf("%.1f,%.1f", px(float64(k)*hz/shaft), py(lines[k])))
	}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img" font-family="sans-serif" font-size="11">`, pictureWidth, pictureHeight)
	fmt.Fprintf(&s, `<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/><text x="%g" y="16" font-size="13">%s</text>`, html.EscapeString(title), left, html.EscapeString(title))
	for _, m := range []struct {
		name, colour string
		order        float64
	}{{"outer race", "#b00020", b.BPFO}, {"inner race", "#0b57d0", b.BPFI}, {"ball", "#7a5a00", b.BSF2}} {
		for h := 1; h <= 3 && m.order > 0; h++ {
			at := px(m.order * float64(h))
			fmt.Fprintf(&s, `<line x1="%.1f" y1="%g" x2="%.1f" y2="%g" stroke="%s" stroke-dasharray="3 3"/>`, at, top, at, pictureHeight-bottom, m.colour)
			if h == 1 {
				fmt.Fprintf(&s, `<text x="%.1f" y="%g" fill="%s" transform="rotate(-90 %.1f %g)">%s</text>`, at-3, top+62, m.colour, at-3, top+62, m.name)
			}
		}
	}
	fmt.Fprintf(&s, `<polyline fill="none" stroke="#222" points="%s"/>`, strings.Join(points, " "))
	fmt.Fprintf(&s, `<line x1="%g" y1="%g" x2="%g" y2="%g" stroke="#222"/>`, left, pictureHeight-bottom, pictureWidth-right, pictureHeight-bottom)
	for o := 0.0; o <= most; o += 2 {
		fmt.Fprintf(&s, `<text x="%.1f" y="%g" text-anchor="middle">%g</text>`, px(o), pictureHeight-bottom+14, o)
	}
	fmt.Fprintf(&s, `<text x="%g" y="%g" text-anchor="middle">multiples of the shaft's speed, %.0f /min</text>`, (left+pictureWidth-right)/2, pictureHeight-6, rpm)
	fmt.Fprintf(&s, `<text x="6" y="%g" transform="rotate(-90 12 %g)">envelope</text></svg>`, pictureHeight/2, pictureHeight/2)
	return []byte(s.String()), nil
}

// envelopeSpectrum is the amplitude of each line of the squared envelope.
func envelopeSpectrum(x []float64, rate float64) []float64 {
	n := len(x)
	mean := 0.0
	for _, v := range x {
		mean += v / float64(n)
	}
	c := make([]complex128, n)
	for i, v := range x {
		c[i] = complex(v-mean, 0)
	}
	fft := fourier.NewCmplxFFT(n)
	c = fft.Coefficients(c, c)
	hz := rate / float64(n)
	for k := range c {
		if f := float64(k) * hz; f < envelopeLow || f > min(envelopeHigh, rate/2-hz) {
			c[k] = 0
		}
	}
	c = fft.Sequence(c, c)
	mean = 0
	for i, v := range c {
		a := cmplx.Abs(v)
		c[i] = complex(a*a, 0)
		mean += a * a / float64(n)
	}
	for i := range c {
		hann := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(n))
		c[i] = complex(hann*(real(c[i])-mean), 0)
	}
	c = fft.Coefficients(c, c)
	out := make([]float64, n/2)
	for k := range out {
		out[k] = cmplx.Abs(c[k])
	}
	return out
}
