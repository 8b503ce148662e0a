// Package ui tests the page in a real browser: against the built binary with
// an edge that is cut off, and against a mock plant for the states that a test
// cannot bring about on the real one. It drives Chromium through Node scripts
// that lie beside it.
package ui
