package kafka_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/credentials"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/test/harness"
	"github.com/headrace/headrace/test/kafka"
)

// Every way in that a cluster may ask for, and what is said when it is refused.
func TestWaysIn(t *testing.T) {
	c := kafka.Start(t, kafka.Options{Secure: true})
	certs := c.Certificates
	sasl := func(mechanism, password string) *kafkac.SASL {
		return &kafkac.SASL{Mechanism: mechanism, User: kafka.User, Password: password}
	}
	for _, w := range []struct {
		name    string
		address string
		files   credentials.Files
		sasl    *kafkac.SASL
		refused string
	}{
		{"PLAIN", c.Addresses()[0], credentials.Files{CA: certs.CA}, sasl("PLAIN", kafka.Password), ""},
		{"SCRAM-SHA-256", c.Addresses()[0], credentials.Files{CA: certs.CA}, sasl("SCRAM-SHA-256", kafka.Password), ""},
		{"SCRAM-SHA-512", c.Addresses()[0], credentials.Files{CA: certs.CA}, sasl("SCRAM-SHA-512", kafka.Password), ""},
		{"a certificate", c.Mutual(), credentials.Files{CA: certs.CA, Cert: certs.ClientCert, Key: certs.ClientKey}, nil, ""},
		{"a wrong password", c.Addresses()[0], credentials.Files{CA: certs.CA}, sasl("SCRAM-SHA-512", "not-"+kafka.Password), "SASL_AUTHENTICATION_FAILED"},
		{"another authority", c.Addresses()[0], credentials.Files{CA: certs.OtherCA}, sasl("SCRAM-SHA-512", kafka.Password), "certificate"},
		{"no certificate", c.Mutual(), credentials.Files{CA: certs.CA}, nil, "certificate"},
	} {
		t.Run(w.name, func(t *testing.T) {
			tls, err := w.files.Client()
			if err != nil {
				t.Fatal(err)
			}
			log := new(harness.Log)
			admin, err := kafkac.NewAdmin(kafkac.Config{
				Brokers: []string{w.address}, TLS: tls, SASL: w.sasl, Log: slog.New(slog.NewTextHandler(log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			limit := time.Minute
			if w.refused != "" {
				limit = 10 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err = admin.Ping(ctx)
			said := log.String()
			switch {
			case w.refused == "" && err != nil:
				t.Fatalf("%v\n%s", err, said)
			case w.refused != "" && err == nil:
				t.Fatal("it was let in")
			case w.refused != "" && !strings.Contains(err.Error()+said, w.refused):
				t.Errorf("said %v\n%s\nwant %q in it", err, said, w.refused)
			}
			if err != nil {
				said += err.Error()
			}
			if strings.Contains(said, kafka.Password) {
				t.Errorf("the password was said:\n%s", said)
			}
		})
	}
}
