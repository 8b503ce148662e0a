package broker

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/crypto/bcrypt"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/internal/strictyaml"
)

// User is who may connect, and what for.
type User struct {
	Name string `yaml:"name" json:"name"`
	// Password is a bcrypt hash, as `htpasswd -nB` makes it.
	Password string `yaml:"password" json:"password,omitempty"`
	// Certificate is the common name or a DNS name of the client's certificate,
	// which then needs no password.
	Certificate string `yaml:"certificate" json:"certificate,omitempty"`
	// Publish and Subscribe are topic filters. Publish counts for retained
	// messages and for the will too.
	Publish   []string `yaml:"publish" json:"publish,omitempty"`
	Subscribe []string `yaml:"subscribe" json:"subscribe,omitempty"`
}

// maxUsers bounds a users file.
const maxUsers = 100_000

// ReadUsers reads a file of users.
func ReadUsers(file string) ([]User, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading MQTT users: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading MQTT users %s: %w", file, err)
	}
	return ParseUsers(file, b)
}

// ParseUsers reads the text of a users file; name stands in errors.
func ParseUsers(name string, b []byte) ([]User, error) {
	if len(b) > strictyaml.MaxBytes {
		return nil, fmt.Errorf("reading MQTT users %s: it is longer than %d MiB", name, strictyaml.MaxBytes>>20)
	}
	var file struct {
		Users []User `yaml:"users"`
	}
	if err := strictyaml.Decode(name, b, &file); err != nil {
		return nil, err
	}
	if len(file.Users) == 0 || len(file.Users) > maxUsers {
		return nil, fmt.Errorf("reading MQTT users %s: it names %d users, and 1 to %d are possible", name, len(file.Users), maxUsers)
	}
	if _, err := newAccess(file.Users); err != nil {
		return nil, fmt.Errorf("reading MQTT users %s: %w", name, err)
	}
	return file.Users, nil
}

// access decides who may connect. It is called by the server for each
// connection.
type access struct {
	byName, byCertificate map[string]*identity
	dummy                 []byte // hash that an unknown user is compared with
	// own is the user that the stations of this process are.
	own    identity
	secret []byte

	key     []byte // of what known holds
	hashing sync.Mutex
	mu      sync.Mutex
	known   map[string][]byte // passwords that were right once
}

type identity struct {
	user *server.User
	hash []byte
}

func newAccess(users []User) (*access, error) {
	a := &access{byName: map[string]*identity{}, byCertificate: map[string]*identity{}, known: map[string][]byte{}}
	a.secret, a.key = []byte(rand.Text()), []byte(rand.Text())
	a.own.user = &server.User{Username: "headrace (this process)"}
	for i, u := range users {
		at := fmt.Sprintf("user %d, %q", i+1, u.Name)
		switch {
		case u.Name == "" || u.Name == a.own.user.Username:
			return nil, fmt.Errorf("%s: this name is not possible", at)
		case a.byName[u.Name] != nil:
			return nil, fmt.Errorf("%s: the name stands twice", at)
		case u.Password == "" && u.Certificate == "":
			return nil, fmt.Errorf("%s: it has neither password nor certificate", at)
		case a.byCertificate[u.Certificate] != nil:
			return nil, fmt.Errorf("%s: certificate %q stands twice", at, u.Certificate)
		}
		if u.Password != "" {
			if _, err := bcrypt.Cost([]byte(u.Password)); err != nil {
				return nil, fmt.Errorf("%s: the password is not a bcrypt hash; make one with: htpasswd -nB NAME", at)
			}
			a.dummy = []byte(u.Password)
		}
		publish, err := subjects(u.Publish)
		if err != nil {
			return nil, fmt.Errorf("%s: publish: %w", at, err)
		}
		subscribe, err := subjects(u.Subscribe)
		if err != nil {
			return nil, fmt.Errorf("%s: subscribe: %w", at, err)
		}
		// The server's own way of delivering QoS 1 and 2, which no client can ask for.
		subscribe.Allow = append(subscribe.Allow, "$MQTT.sub.>", "$MQTT.deliver.pubrel.>")
		id := &identity{hash: []byte(u.Password), user: &server.User{
			Username: u.Name, Permissions: &server.Permissions{Publish: publish, Subscribe: subscribe},
		}}
		a.byName[u.Name] = id
		if u.Certificate != "" {
			a.byCertificate[u.Certificate] = id
		}
	}
	return a, nil
}

// subjects turns topic filters into the server's words: + is *, # is >, a
// level ends with a dot, and a dot in a name is two slashes.
func subjects(filters []string) (*server.SubjectPermission, error) {
	if len(filters) == 0 {
		return &server.SubjectPermission{Deny: []string{">"}}, nil
	}
	out := new(server.SubjectPermission)
	for _, f := range filters {
		levels := strings.Split(f, "/")
		for i, level := range levels {
			last := i == len(levels)-1
			switch {
			case level == "#" && last:
				levels[i] = ">"
			case level == "+":
				levels[i] = "*"
			case level == "" || strings.ContainsAny(level, "+# \t\r\n*>\x00\x7f"):
				return nil, fmt.Errorf("topic filter %q: level %q is not possible", f, level)
			default:
				levels[i] = strings.ReplaceAll(level, ".", "//")
			}
		}
		out.Allow = append(out.Allow, strings.Join(levels, "."))
		if n := len(levels) - 1; n > 0 && levels[n] == ">" {
			out.Allow = append(out.Allow, strings.Join(levels[:n], ".")) // a/# is a too
		}
	}
	return out, nil
}

// Check lets a connection in, or not.
func (a *access) Check(c server.ClientAuthentication) bool {
	if c.Kind() != server.CLIENT {
		return false
	}
	opts := c.GetOpts()
	if opts.Username == a.own.user.Username {
		if subtle.ConstantTimeCompare([]byte(opts.Password), a.secret) != 1 {
			return false
		}
		c.RegisterUser(a.own.user)
		return true
	}
	if id := a.certified(c.GetTLSConnectionState()); id != nil && (opts.Username == "" || opts.Username == id.user.Username) {
		c.RegisterUser(id.user)
		return true
	}
	id := a.byName[opts.Username]
	if !a.knows(id, opts.Username, opts.Password) {
		return false
	}
	c.RegisterUser(id.user)
	return true
}

// certified finds the user of a verified certificate.
func (a *access) certified(state *tls.ConnectionState) *identity {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	for _, name := range names(state.PeerCertificates[0]) {
		if id := a.byCertificate[name]; id != nil {
			return id
		}
	}
	return nil
}

func names(c *x509.Certificate) []string {
	return slices.Concat([]string{c.Subject.CommonName}, c.DNSNames)
}

// knows compares a password with the user's hash; id is nil for nobody, who
// takes as long. A password that was right is remembered under a key of this
// process, so that a thousand edges that come back do not cost a minute.
func (a *access) knows(id *identity, name, password string) bool {
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(name + "\x00" + password))
	sum := mac.Sum(nil)
	a.mu.Lock()
	before := a.known[name]
	a.mu.Unlock()
	if before != nil && hmac.Equal(before, sum) {
		return true
	}
	hash := a.dummy
	if id != nil && len(id.hash) > 0 {
		hash = id.hash
	}
	a.hashing.Lock() // strangers get one core at most
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	a.hashing.Unlock()
	if err != nil || id == nil || len(id.hash) == 0 {
		return false
	}
	a.mu.Lock()
	a.known[name] = sum
	a.mu.Unlock()
	return true
}

// Local is how a station of this process reaches the broker: over the same
// listener as everybody, as a user that only this process knows.
func (b *Broker) Local() mqttc.Config {
	scheme := "tcp://"
	cfg := mqttc.Config{}
	if b.cert != nil {
		scheme = "ssl://"
		own := b.cert
		cfg.TLS = &tls.Config{
			MinVersion: tls.VersionTLS12,
			// The name need not be that of this address: it is our own certificate or nobody's.
			InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 || !slices.Equal(s.PeerCertificates[0].Raw, own) {
					return errors.New("this is not the broker of this process")
				}
				return nil
			},
		}
	}
	if b.access != nil {
		cfg.Username, cfg.Password = b.access.own.user.Username, string(b.access.secret)
	}
	host, port, err := net.SplitHostPort(b.addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	cfg.Addresses = []string{scheme + net.JoinHostPort(host, port)}
	return cfg
}

// guarded refuses to listen where others could come in unasked.
func guarded(host string, opts Options) error {
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	var missing []string
	if opts.TLS == nil {
		missing = append(missing, "TLS (--listen-mqtt-cert, --listen-mqtt-key)")
	}
	if len(opts.Users) == 0 {
		missing = append(missing, "users (--listen-mqtt-users)")
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("MQTT address %s is beyond loopback, where %s are needed; give them, or use 127.0.0.1 with --listen-mqtt", opts.Listen, strings.Join(missing, " and "))
}

// advice tells what to do about what the server refuses.
func advice(text string) string {
	for _, a := range []struct{ part, remedy string }{
		{"unacceptable protocol version", "the client asks for MQTT 5: set it to MQTT 3.1.1 (version 4), or use an outside broker with --mqtt"},
		{"older protocol", "the client asks for MQTT 3.1: set it to MQTT 3.1.1 (version 4)"},
		{"character not supported for MQTT topics", "a topic holds a blank or a control character: write %20 for a blank (percent-encoding), or use an outside broker with --mqtt"},
		{"Publish Violation", "the user has no right to publish there: add the topic to its publish list in the users file"},
		{"Subscription Violation", "the user has no right to subscribe there: add the filter to its subscribe list in the users file"},
		{"maximum connections exceeded", "more clients than the broker takes: end some, or use an outside broker with --mqtt"},
		{"authentication error", "user and password, or certificate, are not those of the users file"},
		{"maximum payload", "a message is larger than the broker takes (8 MiB): send smaller ones"},
	} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(a.part)) {
			return a.remedy
		}
	}
	return ""
}
