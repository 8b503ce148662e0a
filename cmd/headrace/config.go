package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/headrace/headrace/internal/strictyaml"
)

// fileConfig is the configuration file of up and run; every key is a flag too,
// and a flag wins.
type fileConfig struct {
	Dir      string   `yaml:"dir"`
	Roles    []string `yaml:"roles"`
	Plant    string   `yaml:"plant"`
	Replay   string   `yaml:"replay"`
	Plain    string   `yaml:"plain"`
	Routes   string   `yaml:"routes"`
	Foreign  string   `yaml:"foreign"`
	Registry string   `yaml:"registry"`
	Speed    string   `yaml:"speed"`
	Filters  string   `yaml:"filters"`
	Listen   struct {
		MQTT  string `yaml:"mqtt"`
		Kafka string `yaml:"kafka"`
		HTTP  string `yaml:"http"`
	} `yaml:"listen"`
	AdvertiseKafka    string   `yaml:"advertise_kafka"`
	MQTT              []string `yaml:"mqtt"`
	Kafka             []string `yaml:"kafka"`
	ListenMQTTUsers   string   `yaml:"listen_mqtt_users"`
	ListenMQTTCert    string   `yaml:"listen_mqtt_cert"`
	ListenMQTTKey     string   `yaml:"listen_mqtt_key"`
	ListenMQTTCA      string   `yaml:"listen_mqtt_ca"`
	KafkaTLS          string   `yaml:"kafka_tls"`
	KafkaCA           string   `yaml:"kafka_ca"`
	KafkaCert         string   `yaml:"kafka_cert"`
	KafkaKey          string   `yaml:"kafka_key"`
	KafkaSASL         string   `yaml:"kafka_sasl"`
	KafkaUser         string   `yaml:"kafka_user"`
	KafkaPasswordFile string   `yaml:"kafka_password_file"`
	MQTTCA            string   `yaml:"mqtt_ca"`
	MQTTCert          string   `yaml:"mqtt_cert"`
	MQTTKey           string   `yaml:"mqtt_key"`
	MQTTUser          string   `yaml:"mqtt_user"`
	MQTTPasswordFile  string   `yaml:"mqtt_password_file"`
	BridgeGroup       string   `yaml:"bridge_group"`
	TrimKafka         string   `yaml:"trim_kafka"`
}

// loadConfig reads the file that --config names.
func loadConfig(r io.Reader) (kong.Resolver, error) {
	b, err := io.ReadAll(io.LimitReader(r, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	name := "configuration"
	if f, ok := r.(interface{ Name() string }); ok {
		name = f.Name()
	}
	if len(b) > strictyaml.MaxBytes {
		return nil, fmt.Errorf("reading %s: it is longer than %d MiB", name, strictyaml.MaxBytes>>20)
	}
	var c fileConfig
	if err := strictyaml.Decode(name, b, &c); err != nil {
		return nil, err
	}
	set := map[string]string{
		"dir":                 c.Dir,
		"roles":               strings.Join(c.Roles, ","),
		"plant":               c.Plant,
		"replay":              c.Replay,
		"registry":            c.Registry,
		"plain":               c.Plain,
		"routes":              c.Routes,
		"foreign":             c.Foreign,
		"speed":               c.Speed,
		"filters":             c.Filters,
		"listen-mqtt":         c.Listen.MQTT,
		"listen-kafka":        c.Listen.Kafka,
		"listen-http":         c.Listen.HTTP,
		"advertise-kafka":     c.AdvertiseKafka,
		"mqtt":                strings.Join(c.MQTT, ","),
		"kafka":               strings.Join(c.Kafka, ","),
		"listen-mqtt-users":   c.ListenMQTTUsers,
		"listen-mqtt-cert":    c.ListenMQTTCert,
		"listen-mqtt-key":     c.ListenMQTTKey,
		"listen-mqtt-ca":      c.ListenMQTTCA,
		"kafka-tls":           c.KafkaTLS,
		"kafka-ca":            c.KafkaCA,
		"kafka-cert":          c.KafkaCert,
		"kafka-key":           c.KafkaKey,
		"kafka-sasl":          c.KafkaSASL,
		"kafka-user":          c.KafkaUser,
		"kafka-password-file": c.KafkaPasswordFile,
		"mqtt-ca":             c.MQTTCA,
		"mqtt-cert":           c.MQTTCert,
		"mqtt-key":            c.MQTTKey,
		"mqtt-user":           c.MQTTUser,
		"mqtt-password-file":  c.MQTTPasswordFile,
		"bridge-group":        c.BridgeGroup,
		"trim-kafka":          c.TrimKafka,
	}
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if v := set[flag.Name]; v != "" {
			return v, nil
		}
		return nil, nil
	}), nil
}
