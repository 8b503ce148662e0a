// Package vibration makes numbers of waveforms at the machine: for each window
// of an acceleration channel its RMS, peak, crest factor and kurtosis, the
// energy of bands, and the energy of the envelope at the orders at which the
// bearing's parts strike. It also decides which windows leave the edge as they
// are.
//
// It neither keeps waveforms (that is edge/ring) nor sends anything. The
// formulas are in docs/formats/vibration.md.
package vibration
