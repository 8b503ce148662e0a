// Package arch holds the tests of the house's plan: which folder may import
// which, where each outside client is spoken to, and what no file may hold. It
// has no code of its own; nothing imports it.
package arch
