// Package model learns how a healthy machine looks and says how far a machine
// is from it: principal components of an asset's features, with Hotelling's T²
// within them and the squared residual Q outside.
//
// It computes no features and raises no alert.
package model
