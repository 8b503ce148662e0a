// Package vibration makes numbers of waveforms at the machine: for each window
// of an acceleration channel, or each average of windows, its RMS, peak, crest
// factor and kurtosis, the energy of bands in Hz and orders, its velocity and
// zone, and the energy of the envelope at the orders at which the bearing's
// parts strike, in the operating regimes that are declared. It also decides which
// blocks leave the edge as they are.
//
// It neither keeps waveforms (that is edge/ring) nor sends anything. The
// formulas are in docs/formats/vibration.md.
package vibration
