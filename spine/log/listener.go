package log

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// maxRequestBytes bounds one request; more is refused before memory is taken
// for it.
const maxRequestBytes = 100 << 20

// listener tells clients an address of its own, since the cluster advertises
// what its listener says, and checks the length of each request.
type listener struct {
	net.Listener
	advertise string
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// Addr returns the address to advertise.
func (l *listener) Addr() net.Addr {
	if l.advertise != "" {
		return address(l.advertise)
	}
	return l.Listener.Addr()
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &framed{Conn: c}, nil
}

// framed is a connection whose requests, each a length of four bytes and so
// many bytes, are checked as they are read. It is read from one goroutine.
type framed struct {
	net.Conn
	head []byte // of the length, not yet handed on
	left int    // of the request
}

// Read reads within one request.
func (f *framed) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(f.head) == 0 && f.left == 0 {
		head := make([]byte, 4)
		if _, err := io.ReadFull(f.Conn, head); err != nil {
			return 0, err
		}
		length := binary.BigEndian.Uint32(head)
		if length > maxRequestBytes {
			return 0, fmt.Errorf("request of %d bytes is larger than %d", length, maxRequestBytes)
		}
		f.head, f.left = head, int(length)
	}
	if len(f.head) > 0 {
		n := copy(p, f.head)
		f.head = f.head[n:]
		return n, nil
	}
	n, err := f.Conn.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}
