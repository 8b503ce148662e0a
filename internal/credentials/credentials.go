// Package credentials reads what this process shows to a server, and what it
// asks of one: certificates, and a user's password from a file or from an
// environment variable.
//
// A password never stands on a command line or in a configuration file, and
// what is read here has no form that a log could show. It knows no protocol:
// Kafka's and MQTT's clients get a [tls.Config] and a [Login].
package credentials

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// maxFile bounds a file of certificates or a password.
const maxFile = 1 << 20

// Files name the certificates of a connection, in PEM.
type Files struct {
	CA   string // who may have signed the server's certificate; "" is the system's roots
	Cert string // this process's certificate, with its chain; "" shows none
	Key  string // of Cert, PKCS 8, not encrypted
}

// Set tells whether a file is named.
func (f Files) Set() bool { return f.CA != "" || f.Cert != "" || f.Key != "" }

// Client returns the settings of a client. Errors name the file.
func (f Files) Client() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		roots, err := pool(f.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = roots
	}
	if f.Cert == "" && f.Key == "" {
		return cfg, nil
	}
	pair, err := f.pair()
	if err != nil {
		return nil, err
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// Server returns the settings of a listener, which needs Cert and Key. With CA
// it asks clients for a certificate signed by one of it, and refuses those that
// show another; whether one must be shown is the listener's business.
func (f Files) Server() (*tls.Config, error) {
	pair, err := f.pair()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if f.CA != "" {
		if cfg.ClientCAs, err = pool(f.CA); err != nil {
			return nil, err
		}
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return cfg, nil
}

func (f Files) pair() (tls.Certificate, error) {
	if f.Cert == "" || f.Key == "" {
		return tls.Certificate{}, errors.New("reading a certificate: certificate and key belong together; name both files")
	}
	cert, err := read(f.Cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := read(f.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	return pair, nil
}

func pool(file string) (*x509.CertPool, error) {
	b, err := read(file)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("reading certificates %s: it holds none in PEM", file)
	}
	return p, nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading credentials: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading credentials %s: %w", file, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("reading credentials %s: it is longer than %d bytes", file, maxFile)
	}
	return b, nil
}

// Secret is a password. It prints as stars, whatever prints it.
type Secret string

// String hides the secret.
func (Secret) String() string { return "***" }

// GoString hides the secret.
func (Secret) GoString() string { return "***" }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Reveal returns the secret, for the one who sends it.
func (s Secret) Reveal() string { return string(s) }

// Login is a user and its password; the zero value is nobody.
type Login struct {
	User     string
	Password Secret
}

// ReadLogin makes a login of a user and the first line of a file, or of the
// environment's variable if no file is named. A user without a password is an
// error; so is a password without a user.
func ReadLogin(user, file, variable string, getenv func(string) string) (Login, error) {
	secret, from := "", ""
	switch {
	case file != "":
		b, err := read(file)
		if err != nil {
			return Login{}, err
		}
		from = file
		secret, _, _ = strings.Cut(string(b), "\n")
		secret = strings.TrimSuffix(secret, "\r")
		if secret == "" {
			return Login{}, fmt.Errorf("reading password file %s: its first line is empty", file)
		}
	default:
		from = "the variable " + variable
		secret = getenv(variable)
	}
	switch {
	case user == "" && file != "":
		return Login{}, fmt.Errorf("%s holds a password, and no user is named", from)
	case user == "":
		return Login{}, nil
	case secret == "":
		return Login{}, fmt.Errorf("user %s has no password; name a file that holds it, or set %s", user, variable)
	}
	return Login{User: user, Password: Secret(secret)}, nil
}
