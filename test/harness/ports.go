package harness

import (
	"net"
	"testing"
)

// FreePorts are n addresses on loopback that nobody listened on a moment ago,
// for programs that cannot be asked which port they chose.
func FreePorts(t testing.TB, n int) []string {
	t.Helper()
	out := make([]string, n)
	for i := range out {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out[i] = l.Addr().String()
	}
	return out
}

// Listens tells whether somebody takes connections at an address.
func Listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
