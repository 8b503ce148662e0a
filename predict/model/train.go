package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat/distuv"
)

const (
	// LeastRows is how many windows a healthy period must have.
	LeastRows = 12
	// rowsPerComponent bounds the kept components by the number of rows: a limit
	// learnt from few windows in many directions would be no limit.
	rowsPerComponent = 6
	// confidence is that of the limits: one healthy window in a thousand is
	// beyond, and an alert needs several.
	confidence = 0.999
)

// Feature is one input of a model: its name and Tolerance, the deviation that
// a healthy machine shows from one day to another, which a short healthy period
// does not show. It is in the feature's own unit.
type Feature struct {
	Name      string  `json:"name"`
	Tolerance float64 `json:"tolerance"`
}

// Vibration are the features of features.vibration. The tolerances are set by
// what may change without a defect: 15 % of gain by mounting and load, 0.3 of
// kurtosis and 15 % of crest by chance, a tenth of the energy moving between
// bands by speed and load, a doubling of an order's small part of the envelope's
// energy (a fourth of its logarithm, twice).
func Vibration(names []string) []Feature {
	tolerance := map[string]float64{
		"log_rms": 0.15, "kurtosis": 0.3, "log_crest": 0.15,
		"share_1x": 0.1, "share_low": 0.1, "share_mid": 0.1, "share_high": 0.1,
		"env_bpfo": 0.35, "env_bpfi": 0.35, "env_bsf": 0.35, "env_ftf": 0.35,
	}
	out := make([]Feature, len(names))
	for i, n := range names {
		out[i] = Feature{n, tolerance[n]}
	}
	return out
}

// Model is what a healthy machine looks like: the principal components of its
// features. It is content: equal models have equal JSON and equal hashes.
type Model struct {
	Kind       string      `json:"kind"` // "pca/1"
	Definition string      `json:"definition"`
	Data       string      `json:"data"` // hash of the healthy rows
	Rows       int         `json:"rows"`
	Features   []Feature   `json:"features"` // those that are used
	Mean       []float64   `json:"mean"`
	Scale      []float64   `json:"scale"`      // of one standardised unit
	Components [][]float64 `json:"components"` // orthonormal rows, descending by Variance
	Variance   []float64   `json:"variance"`   // of each kept component
	T2Limit    float64     `json:"t2_limit"`
	QLimit     float64     `json:"q_limit"`
}

// TooFewError says that a healthy period has too few usable windows.
type TooFewError struct{ Rows, Least int }

func (e *TooFewError) Error() string {
	return fmt.Sprintf("the healthy period has %d usable windows, at least %d are needed; name a longer one", e.Rows, e.Least)
}

// Train learns from the rows of a healthy period: one value a feature, NaN
// where it is unknown. A feature that is unknown in more than a tenth of the
// rows is left out, then rows that lack one.
func Train(definition string, features []Feature, rows [][]float64) (*Model, error) {
	m := &Model{Kind: "pca/1", Definition: definition}
	var use []int
	for j, f := range features {
		unknown := 0
		for _, r := range rows {
			if math.IsNaN(r[j]) {
				unknown++
			}
		}
		if unknown*10 <= len(rows) && f.Tolerance > 0 {
			use = append(use, j)
			m.Features = append(m.Features, f)
		}
	}
	var x [][]float64
	for _, r := range rows {
		picked := make([]float64, len(use))
		for k, j := range use {
			picked[k] = r[j]
		}
		if !slices.ContainsFunc(picked, math.IsNaN) {
			x = append(x, picked)
		}
	}
	if len(x) < LeastRows || len(use) < 2 {
		return nil, fmt.Errorf("training a model: %w", &TooFewError{len(x), LeastRows})
	}
	m.Rows, m.Data = len(x), hashRows(x)
	return m, m.fit(x)
}

func hashRows(x [][]float64) string {
	h := sha256.New()
	for _, r := range x {
		for _, v := range r {
			h.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// fit finds the components of the rows' correlation, with the tolerances' part
// on its diagonal, and the limits.
func (m *Model) fit(x [][]float64) error {
	n, d := len(x), len(m.Features)
	m.Mean, m.Scale = make([]float64, d), make([]float64, d)
	for _, r := range x {
		for j, v := range r {
			m.Mean[j] += v / float64(n)
		}
	}
	cov := mat.NewSymDense(d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			sum := 0.0
			for _, r := range x {
				sum += (r[i] - m.Mean[i]) * (r[j] - m.Mean[j])
			}
			cov.SetSym(i, j, sum/float64(n-1))
		}
	}
	for j, f := range m.Features {
		cov.SetSym(j, j, cov.At(j, j)+f.Tolerance*f.Tolerance)
		m.Scale[j] = math.Sqrt(cov.At(j, j))
	}
	corr := mat.NewSymDense(d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			corr.SetSym(i, j, cov.At(i, j)/(m.Scale[i]*m.Scale[j]))
		}
	}
	var eig mat.EigenSym
	if !eig.Factorize(corr, true) {
		return fmt.Errorf("training a model: the correlation of its features has no components")
	}
	values := eig.Values(nil) // ascending
	var vectors mat.Dense
	eig.VectorsTo(&vectors)
	// Kept is what varies more than one feature alone (Kaiser's rule).
	for k := d - 1; k >= 1 && (len(m.Variance) == 0 || values[k] > 1 && len(m.Variance) < n/rowsPerComponent); k-- {
		m.Variance = append(m.Variance, values[k])
		v := mat.Col(nil, k, &vectors)
		// The sign of a component is free; this makes it the same everywhere.
		if big := slices.MaxFunc(v, func(a, b float64) int { return int(math.Copysign(1, math.Abs(a)-math.Abs(b))) }); big < 0 {
			for i := range v {
				v[i] = -v[i]
			}
		}
		m.Components = append(m.Components, v)
	}
	m.limits(values[:d-len(m.Variance)], n)
	return nil
}

// limits are those of a healthy window at the confidence. T² of k components
// learnt from n windows: k(n²−1)/(n(n−k))·F(k, n−k) (Jackson, A User's Guide to
// Principal Components, 1991). Q: a scaled χ² with the residual variances' first
// two moments (Box, 1954).
func (m *Model) limits(residual []float64, n int) {
	k := float64(len(m.Variance))
	fn := float64(n)
	f := distuv.F{D1: k, D2: fn - k}
	m.T2Limit = k * (fn*fn - 1) / (fn * (fn - k)) * f.Quantile(confidence)
	s1, s2 := 0.0, 0.0
	for _, v := range residual {
		s1 += v
		s2 += v * v
	}
	chi := distuv.ChiSquared{K: s1 * s1 / s2}
	m.QLimit = s2 / s1 * chi.Quantile(confidence)
}

// Hash names the model's content: 16 hex digits.
func (m *Model) Hash() string {
	sum := sha256.Sum256(m.JSON())
	return hex.EncodeToString(sum[:8])
}

// JSON is the model's canonical form.
func (m *Model) JSON() []byte {
	b, _ := json.Marshal(m) // finite numbers and names cannot fail
	return b
}

// Parse reads a model's canonical form.
func Parse(b []byte) (*Model, error) {
	var m Model
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("reading a model: %w", err)
	}
	d := len(m.Features)
	ok := m.Kind == "pca/1" && d > 0 && len(m.Mean) == d && len(m.Scale) == d && len(m.Components) > 0 && len(m.Components) == len(m.Variance) &&
		m.T2Limit > 0 && m.QLimit > 0
	for _, c := range m.Components {
		ok = ok && len(c) == d
	}
	for _, v := range slices.Concat(m.Scale, m.Variance) {
		ok = ok && v > 0
	}
	if !ok {
		return nil, fmt.Errorf("reading a model: it is no pca/1 model; train it anew")
	}
	return &m, nil
}

// Score fills in what the model says of a row: a value of each feature by name.
// A row that lacks one is [Incomplete].
func (m *Model) Score(p *Prediction, names []string, row []float64) {
	p.Model, p.T2Limit, p.QLimit = m.Hash(), m.T2Limit, m.QLimit
	d := len(m.Features)
	value, z := make([]float64, d), make([]float64, d)
	for j, f := range m.Features {
		i := slices.Index(names, f.Name)
		if i < 0 || math.IsNaN(row[i]) {
			p.Status = Incomplete
			return
		}
		value[j] = row[i]
		z[j] = (row[i] - m.Mean[j]) / m.Scale[j]
	}
	p.Status = Scored
	inner := make([]float64, d) // gradient of T² over z, halved
	residual := slices.Clone(z)
	for k, c := range m.Components {
		t := 0.0
		for j := range c {
			t += c[j] * z[j]
		}
		p.T2 += t * t / m.Variance[k]
		for j := range c {
			inner[j] += t / m.Variance[k] * c[j]
			residual[j] -= t * c[j]
		}
	}
	for _, e := range residual {
		p.Q += e * e
	}
	p.Score = max(p.T2/m.T2Limit, p.Q/m.QLimit)
	total := 0.0
	for j, f := range m.Features {
		part := max(z[j]*inner[j], 0) / m.T2Limit
		if p.Q/m.QLimit >= p.T2/m.T2Limit {
			part = residual[j] * residual[j] / m.QLimit
		}
		total += part
		p.Contributions = append(p.Contributions, Contribution{Feature: f.Name, Share: part, Value: value[j], Healthy: m.Mean[j], Z: z[j]})
	}
	for j := range p.Contributions {
		if total > 0 {
			p.Contributions[j].Share /= total
		}
	}
	slices.SortStableFunc(p.Contributions, func(a, b Contribution) int {
		switch {
		case a.Share > b.Share:
			return -1
		case a.Share < b.Share:
			return 1
		}
		return 0
	})
}
