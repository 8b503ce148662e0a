// Package ui holds the built page, embedded, for the server to hand out. Its
// source is TypeScript in src; dist is what `make ui` builds from it and is
// committed, so that building the binary needs no Node. It serves nothing
// itself and knows no address.
package ui

import (
	"embed"
	"io/fs"
)

// Dist is the built page below "dist".
//
//go:embed all:dist
var Dist embed.FS

// FS returns the built page with index.html at its root.
func FS() fs.FS {
	sub, err := fs.Sub(Dist, "dist")
	if err != nil {
		// Only a malformed name fails, and this one is a constant.
		panic(err)
	}
	return sub
}
