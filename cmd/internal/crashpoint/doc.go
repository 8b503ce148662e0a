// Package crashpoint lets the crash tests end a process at a named point of its
// work. In the product it does nothing.
package crashpoint
