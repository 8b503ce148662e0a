package harness

import (
	"net"
	"sync"
	"testing"
)

// Proxy stands between a client and a server on TCP and can be blocked as a
// firewall would: nothing is accepted, nothing forwarded, nothing closed.
type Proxy struct {
	listener net.Listener
	mu       sync.Mutex
	changed  *sync.Cond
	target   string
	blocked  bool
	closed   bool
	conns    map[net.Conn]bool
	all      sync.WaitGroup
}

// NewProxy listens on a free port of loopback; until To is called it accepts nothing.
func NewProxy(t testing.TB) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, conns: map[net.Conn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	p.all.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// To sets the server behind the proxy.
func (p *Proxy) To(addr string) {
	p.set(func() { p.target = addr })
}

// Block stops everything; Open lets it go on.
func (p *Proxy) Block() { p.set(func() { p.blocked = true }) }

// Open lets everything go on.
func (p *Proxy) Open() { p.set(func() { p.blocked = false }) }

// Cut closes every connection that there is.
func (p *Proxy) Cut() {
	p.set(func() {
		for c := range p.conns {
			_ = c.Close()
		}
	})
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	change()
	p.mu.Unlock()
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	p.set(func() { p.closed = true })
	_ = p.listener.Close()
	p.Cut()
	p.all.Wait()
}

// pass waits until traffic may go on and returns the target; "" when closed.
func (p *Proxy) pass() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && (p.blocked || p.target == "") {
		p.changed.Wait()
	}
	if p.closed {
		return ""
	}
	return p.target
}

func (p *Proxy) accept() {
	for {
		if p.pass() == "" {
			return
		}
		down, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.serve(down) })
	}
}

func (p *Proxy) serve(down net.Conn) {
	defer down.Close()
	target := p.pass()
	if target == "" {
		return
	}
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer up.Close()
	p.set(func() { p.conns[down], p.conns[up] = true, true })
	defer p.set(func() { delete(p.conns, down); delete(p.conns, up) })
	var both sync.WaitGroup
	both.Go(func() { p.copy(up, down) })
	both.Go(func() { p.copy(down, up) })
	both.Wait()
}

// copy forwards one direction; its end ends the other.
func (p *Proxy) copy(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if p.pass() == "" {
				return
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
