package roles

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/credentials"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/internal/strictyaml"
	"github.com/headrace/headrace/plant"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/broker"
)

// Role is one thing that a process can be.
type Role string

// The roles, in the order of a reading's way.
const (
	Edge   Role = "edge"   // edge agents: source, filter, outbox, publisher
	Broker Role = "broker" // the embedded MQTT broker
	Bridge Role = "bridge" // MQTT to Kafka
	Spine  Role = "spine"  // the embedded Kafka log
	Lake   Role = "lake"   // bronze, silver, gold
	// Predict computes features, learns and scores models, raises alerts and
	// writes work orders. One process of a lake has it.
	Predict Role = "predict"
	HTTP    Role = "http" // API, live updates, page
)

// All lists every role.
func All() []Role { return []Role{Edge, Broker, Bridge, Spine, Lake, Predict, HTTP} }

// Parse reads a list of role names.
func Parse(names []string) ([]Role, error) {
	all := All()
	var known []string
	for _, r := range all {
		known = append(known, string(r))
	}
	var out []Role
	for _, n := range names {
		n = strings.TrimSpace(n)
		if !slices.Contains(known, n) {
			msg := fmt.Sprintf("role %q is not known; the roles are %s", n, strings.Join(known, ", "))
			if near := strictyaml.Nearest(n, known); near != "" {
				msg += fmt.Sprintf("; did you mean %q?", near)
			}
			return nil, fmt.Errorf("%s", msg)
		}
		if !slices.Contains(out, Role(n)) {
			out = append(out, Role(n))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no role is given; name some of %s with --roles", strings.Join(known, ", "))
	}
	return out, nil
}

// Options say what a process does.
type Options struct {
	Dir   *datadir.Dir
	Roles []Role

	ListenMQTT, ListenKafka, ListenHTTP string // host:port; port 0 chooses one
	AdvertiseKafka                      string // host:port that Kafka clients are told, "" the listener's own

	// Who may use the broker of this process, and over what; both are needed
	// beyond loopback.
	MQTTUsers     []broker.User
	MQTTListenTLS *tls.Config

	MQTT  []string // outside brokers (tcp://host:port); empty: the broker of this process
	Kafka []string // outside Kafka (host:port); empty: the spine of this process
	// Secure says how to speak to those outside.
	Secure Secure
	// PlainFile is YAML of rules for MQTT messages that are no Sparkplug; "" reads
	// site/line/asset/sensor below PlainPrefix.
	PlainFile string
	// RoutesFile is YAML of rules that give streams topics of their own; "" has none.
	RoutesFile string
	// ForeignFile is YAML of Kafka topics that others fill with MQTT messages; "" has
	// none.
	ForeignFile string
	// BridgeGroup names the bridges that share the edge nodes; "" owns all.
	BridgeGroup string
	// TrimKafka lets an outside Kafka forget what bronze has committed.
	TrimKafka bool
	Lake      string // folder of the lake; "" is lake in Dir

	Plant        string  // the simulated plant, "demo:seed=7"; "" none
	Replay       string  // "skab:DIR" or "cwru:DIR", "" none
	RegistryFile string  // YAML of assets that is loaded at start, "" none
	Speed        float64 // plant seconds per second; SpeedMax follows event time
	Filters      string  // "none" or "default"
	UntilDrained bool

	// KafkaSession is how long a silent lake worker keeps its partitions.
	KafkaSession time.Duration

	Version string
	Log     *slog.Logger
	Reached signal.Reached
	// Ready is called once everything serves.
	Ready func(datadir.Run)
}

// Secure is how this process speaks to an MQTT broker and a Kafka that are not
// its own. Its own parts it reaches over loopback.
type Secure struct {
	KafkaTLS  *tls.Config // nil is plain TCP
	KafkaSASL *kafkac.SASL
	MQTTTLS   *tls.Config // for ssl:// addresses; nil is the system's roots
	MQTTLogin credentials.Login
}

// kafkaConfig is how a station reaches Kafka, whichever it is.
func (p *process) kafkaConfig(station string) kafkac.Config {
	cfg := kafkac.Config{Brokers: p.kafka, ClientID: "headrace-" + station, Log: p.Log.With("station", station)}
	if p.log == nil {
		cfg.TLS, cfg.SASL = p.Secure.KafkaTLS, p.Secure.KafkaSASL
	}
	return cfg
}

// mqttConfig is how a station reaches the broker, whichever it is.
func (p *process) mqttConfig() mqttc.Config {
	if p.broker != nil {
		return p.broker.Local()
	}
	return mqttc.Config{
		Addresses: p.mqtt, TLS: p.Secure.MQTTTLS,
		Username: p.Secure.MQTTLogin.User, Password: p.Secure.MQTTLogin.Password.Reveal(),
	}
}

// SpeedMax lets the plant's clock follow event time.
const SpeedMax = 0

func (o *Options) has(r Role) bool { return slices.Contains(o.Roles, r) }

// ends tells whether the source has an end.
func (o *Options) ends() bool {
	if o.Plant == "" {
		return o.Replay != ""
	}
	cfg, err := plant.Parse(o.Plant)
	return err == nil && cfg.Duration > 0
}

// Check finds what cannot work before anything starts.
func (o *Options) Check() error {
	hasSource := o.Replay != "" || o.Plant != ""
	needsMQTT := o.has(Edge) && hasSource || o.has(Bridge)
	needsKafka := o.has(Bridge) || o.has(Lake)
	switch {
	case needsMQTT && !o.has(Broker) && len(o.MQTT) == 0:
		return fmt.Errorf("the roles edge and bridge need an MQTT broker; add the role broker, or name one with --mqtt tcp://HOST:PORT")
	case needsKafka && !o.has(Spine) && len(o.Kafka) == 0:
		return fmt.Errorf("the roles bridge and lake need Kafka; add the role spine, or name one with --kafka HOST:PORT")
	case o.Replay != "" && o.Plant != "":
		return fmt.Errorf("--plant and --replay are two plants; give one of them")
	case o.has(Edge) && !hasSource && len(o.Roles) == 1:
		return fmt.Errorf("the role edge has no source; name one with --replay skab:DIR or --plant demo")
	case hasSource && !o.has(Edge):
		return fmt.Errorf("--replay and --plant need the role edge")
	case o.UntilDrained && !o.ends():
		return fmt.Errorf("--until-drained needs something that ends; add --replay skab:DIR, or give the plant a duration: --plant demo:duration=10m")
	case o.UntilDrained && !o.has(Lake):
		return fmt.Errorf("--until-drained needs the role lake: a reading ends in its tables")
	}
	if o.AdvertiseKafka != "" {
		if host, port, err := net.SplitHostPort(o.AdvertiseKafka); err != nil || host == "" || port == "" || port == "0" {
			return fmt.Errorf("--advertise-kafka %s is not HOST:PORT, which Kafka clients could be told", o.AdvertiseKafka)
		}
	}
	for _, addr := range o.MQTT {
		if !strings.HasPrefix(addr, "tcp://") && !strings.HasPrefix(addr, "ssl://") {
			return fmt.Errorf("--mqtt %s: write tcp://HOST:PORT, or ssl://HOST:PORT for TLS", addr)
		}
	}
	if o.Replay != "" {
		if _, _, err := source.ParseSpec(o.Replay); err != nil {
			return err
		}
	}
	if o.Plant != "" {
		if _, err := plant.Parse(o.Plant); err != nil {
			return err
		}
	}
	if o.PlainFile != "" {
		if !o.has(Bridge) {
			return fmt.Errorf("--plain needs the role bridge, which reads what is no Sparkplug")
		}
		if _, err := readPlain(o.PlainFile); err != nil {
			return err
		}
	}
	if o.ForeignFile != "" {
		if !o.has(Bridge) {
			return fmt.Errorf("--foreign needs the role bridge, which reads the topics")
		}
		if _, err := readForeign(o.ForeignFile); err != nil {
			return err
		}
	}
	if o.RoutesFile != "" {
		if !o.has(Bridge) {
			return fmt.Errorf("--routes needs the role bridge, which writes to the topics")
		}
		if _, err := readRoutes(o.RoutesFile); err != nil {
			return err
		}
	}
	if o.RegistryFile != "" && !o.has(Lake) && !o.has(Predict) && !o.has(HTTP) {
		return fmt.Errorf("--registry needs one of the roles lake, predict and http, which have the registry")
	}
	for _, l := range []struct {
		role             Role
		what, flag, addr string
	}{
		{Broker, "MQTT", "--listen-mqtt", o.ListenMQTT},
		{Spine, "Kafka", "--listen-kafka", o.ListenKafka},
		{HTTP, "HTTP", "--listen-http", o.ListenHTTP},
	} {
		if !o.has(l.role) {
			continue
		}
		if l.role == Broker && o.MQTTListenTLS != nil && len(o.MQTTUsers) > 0 {
			continue // it knows whom it lets in
		}
		if err := loopback(l.what, l.flag, l.addr); err != nil {
			return err
		}
	}
	return nil
}
