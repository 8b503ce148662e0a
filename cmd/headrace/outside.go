package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/headrace/headrace/internal/credentials"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/server/roles"
	"github.com/headrace/headrace/spine/broker"
)

// Passwords come from a file or from these, never from a flag.
const (
	kafkaPassword = "HEADRACE_KAFKA_PASSWORD"
	mqttPassword  = "HEADRACE_MQTT_PASSWORD"
)

// kafkaFlags name a Kafka that is not ours, and what it asks for.
type kafkaFlags struct {
	Kafka             []string `name:"kafka" help:"Outside Kafka brokers." placeholder:"HOST:PORT,…"`
	KafkaTLS          bool     `name:"kafka-tls" help:"Speak TLS to Kafka, with the system's authorities unless --kafka-ca names one."`
	KafkaCA           string   `name:"kafka-ca" help:"Authority of Kafka's certificate (PEM); means TLS." placeholder:"FILE" type:"path"`
	KafkaCert         string   `name:"kafka-cert" help:"Certificate to show to Kafka (PEM); means TLS." placeholder:"FILE" type:"path"`
	KafkaKey          string   `name:"kafka-key" help:"Key of that certificate (PEM, PKCS 8)." placeholder:"FILE" type:"path"`
	KafkaSASL         string   `name:"kafka-sasl" help:"How to log in to Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512." enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" default:"" placeholder:"MECHANISM"`
	KafkaUser         string   `name:"kafka-user" help:"User for --kafka-sasl." placeholder:"NAME"`
	KafkaPasswordFile string   `name:"kafka-password-file" help:"File with that user's password; without it $HEADRACE_KAFKA_PASSWORD." placeholder:"FILE" type:"path"`
}

// config reads what the flags name.
func (f kafkaFlags) config() (kafkac.Config, error) {
	cfg := kafkac.Config{Brokers: f.Kafka}
	if len(f.Kafka) == 0 {
		if f.KafkaTLS || f.KafkaCA+f.KafkaCert+f.KafkaKey+f.KafkaSASL+f.KafkaUser+f.KafkaPasswordFile != "" {
			return cfg, errors.New("the flags --kafka-… say how to speak to an outside Kafka; name it with --kafka HOST:PORT")
		}
		return cfg, nil
	}
	files := credentials.Files{CA: f.KafkaCA, Cert: f.KafkaCert, Key: f.KafkaKey}
	if f.KafkaTLS || files.Set() {
		var err error
		if cfg.TLS, err = files.Client(); err != nil {
			return cfg, err
		}
	}
	login, err := credentials.ReadLogin(f.KafkaUser, f.KafkaPasswordFile, kafkaPassword, os.Getenv)
	switch {
	case err != nil:
		return cfg, fmt.Errorf("logging in to Kafka: %w", err)
	case f.KafkaSASL == "" && login.User != "":
		return cfg, errors.New("--kafka-user needs --kafka-sasl, the way to log in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	case f.KafkaSASL != "" && login.User == "":
		return cfg, fmt.Errorf("--kafka-sasl %s needs --kafka-user", f.KafkaSASL)
	case f.KafkaSASL == "PLAIN" && cfg.TLS == nil:
		return cfg, errors.New("--kafka-sasl PLAIN would send the password readable; add --kafka-tls or --kafka-ca FILE, or use SCRAM-SHA-512")
	case f.KafkaSASL != "":
		cfg.SASL = &kafkac.SASL{Mechanism: f.KafkaSASL, User: login.User, Password: login.Password.Reveal()}
	}
	return cfg, nil
}

// mqttFlags name MQTT brokers that are not ours, and what they ask for.
type mqttFlags struct {
	MQTT             []string `name:"mqtt" help:"Outside MQTT brokers, tried in order; ssl:// means TLS." placeholder:"tcp://HOST:PORT,…"`
	MQTTCA           string   `name:"mqtt-ca" help:"Authority of the brokers' certificates (PEM)." placeholder:"FILE" type:"path"`
	MQTTCert         string   `name:"mqtt-cert" help:"Certificate to show to the brokers (PEM)." placeholder:"FILE" type:"path"`
	MQTTKey          string   `name:"mqtt-key" help:"Key of that certificate (PEM, PKCS 8)." placeholder:"FILE" type:"path"`
	MQTTUser         string   `name:"mqtt-user" help:"User at the brokers." placeholder:"NAME"`
	MQTTPasswordFile string   `name:"mqtt-password-file" help:"File with that user's password; without it $HEADRACE_MQTT_PASSWORD." placeholder:"FILE" type:"path"`
}

// secure reads what the flags name into s.
func (f mqttFlags) secure(s *roles.Secure) error {
	files := credentials.Files{CA: f.MQTTCA, Cert: f.MQTTCert, Key: f.MQTTKey}
	if len(f.MQTT) == 0 {
		if files.Set() || f.MQTTUser != "" || f.MQTTPasswordFile != "" {
			return errors.New("the flags --mqtt-… say how to speak to outside brokers; name them with --mqtt ssl://HOST:PORT")
		}
		return nil
	}
	if files.Set() {
		var err error
		if s.MQTTTLS, err = files.Client(); err != nil {
			return err
		}
	}
	login, err := credentials.ReadLogin(f.MQTTUser, f.MQTTPasswordFile, mqttPassword, os.Getenv)
	if err != nil {
		return fmt.Errorf("logging in to the MQTT broker: %w", err)
	}
	s.MQTTLogin = login
	if login.User == "" {
		return nil
	}
	for _, address := range f.MQTT {
		if u, err := url.Parse(address); err == nil && (u.Scheme == "tcp" || u.Scheme == "mqtt") && !onLoopback(u.Hostname()) {
			return fmt.Errorf("--mqtt %s would send the password readable; write ssl:// for TLS", address)
		}
	}
	return nil
}

func onLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// listenMQTTFlags say whom the broker of this process lets in.
type listenMQTTFlags struct {
	ListenMQTTUsers string `name:"listen-mqtt-users" help:"Who may use the broker, and for which topics (YAML); without it everyone, on loopback only." placeholder:"FILE" type:"path"`
	ListenMQTTCert  string `name:"listen-mqtt-cert" help:"The broker's certificate (PEM); MQTT is then spoken over TLS only." placeholder:"FILE" type:"path"`
	ListenMQTTKey   string `name:"listen-mqtt-key" help:"Key of that certificate (PEM, PKCS 8)." placeholder:"FILE" type:"path"`
	ListenMQTTCA    string `name:"listen-mqtt-ca" help:"Authority of the clients' certificates (PEM), for users that have one." placeholder:"FILE" type:"path"`
}

// into reads what the flags name into o.
func (f listenMQTTFlags) into(o *roles.Options) (err error) {
	if f.ListenMQTTUsers != "" {
		if o.MQTTUsers, err = broker.ReadUsers(f.ListenMQTTUsers); err != nil {
			return err
		}
	}
	files := credentials.Files{CA: f.ListenMQTTCA, Cert: f.ListenMQTTCert, Key: f.ListenMQTTKey}
	if !files.Set() {
		return nil
	}
	o.MQTTListenTLS, err = files.Server()
	return err
}

// spine is Kafka as a verb reaches it.
type spine struct {
	config  kafkac.Config
	running bool // a Headrace process with its own spine runs
	close   func() error
}

// openSpine finds the Kafka of a data directory: the one that the flags name,
// that of a running process, or the spine on disk, which is opened for as long
// as it is read.
func openSpine(dir string, f kafkaFlags) (spine, error) {
	cfg, err := f.config()
	if err != nil {
		return spine{}, err
	}
	nothing := func() error { return nil }
	run, running := datadir.ReadRun(dir)
	switch {
	case len(cfg.Brokers) > 0:
		return spine{cfg, running, nothing}, nil
	case running && run.Kafka == "":
		return spine{}, fmt.Errorf("the Headrace that runs in %s has no spine of its own; name its Kafka with --kafka HOST:PORT", dir)
	case running:
		return spine{kafkac.Config{Brokers: []string{run.Kafka}}, true, nothing}, nil
	}
	if err := datadir.Check(dir); err != nil {
		return spine{}, err
	}
	d, err := datadir.Open(dir, version, time.Now())
	if err != nil {
		return spine{}, err
	}
	log, err := roles.OpenSpine(d)
	if err != nil {
		return spine{}, errors.Join(err, d.Close())
	}
	return spine{
		config: kafkac.Config{Brokers: []string{log.Addr()}},
		close:  func() error { log.Close(); return d.Close() },
	}, nil
}
