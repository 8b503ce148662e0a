package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/headrace/headrace/cmd/internal/crashpoint"
	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/server/roles"
)

// common are the flags of up and run. Most are keys of the configuration file
// too, see [fileConfig]; a flag wins.
type common struct {
	Config kong.ConfigFlag `help:"Configuration file (YAML)." placeholder:"FILE"`
	Dir    string          `help:"Data directory: everything that must outlive the process." default:"./headrace-data" type:"path"`

	Plant        string `help:"Simulated plant: demo, or demo:KEY=VALUE,… with seed, duration, faults, outage, duty; none for none." placeholder:"NAME"`
	Replay       string `help:"Send recordings through the whole path: skab:DIR (slow sensors) or cwru:DIR (vibration)." placeholder:"FORM:DIR"`
	Registry     string `help:"File of assets and sensors (YAML) that is loaded at start." placeholder:"FILE" type:"path"`
	Plain        string `help:"File of rules for MQTT messages that are no Sparkplug (YAML); without one plant/SITE/LINE/ASSET/SENSOR is read." placeholder:"FILE" type:"path"`
	Routes       string `help:"File of rules that give sites, lines, assets or classes Kafka topics of their own (YAML)." placeholder:"FILE" type:"path"`
	Foreign      string `help:"File of Kafka topics that others fill with MQTT messages (YAML)." placeholder:"FILE" type:"path"`
	Speed        string `help:"Plant seconds per second of a plant or replay, or max." default:"1" placeholder:"N|max"`
	Filters      string `help:"Filter set of the edges: default or none." enum:"default,none" default:"default"`
	UntilDrained bool   `help:"End, with exit code 0, when every reading of the plant or replay is where it ends."`

	ListenMQTT  string `name:"listen-mqtt" help:"Address for MQTT; port 0 chooses one." default:"127.0.0.1:1883" placeholder:"HOST:PORT"`
	ListenKafka string `name:"listen-kafka" help:"Address for Kafka clients." default:"127.0.0.1:9092" placeholder:"HOST:PORT"`
	listenMQTTFlags
	ListenHTTP     string `name:"listen-http" help:"Address for the page and the API." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	AdvertiseKafka string `name:"advertise-kafka" help:"Address that Kafka clients are told to use, if it is not the one listened on." placeholder:"HOST:PORT"`

	Output  string `help:"Form of what is said on standard output: text or json." enum:"text,json" default:"text"`
	Verbose bool   `short:"v" help:"Say more on standard error."`
}

type upCmd struct{ common }

// defaultPlant is what up simulates when nothing else is named.
const defaultPlant = "demo"

// Help shows examples.
func (upCmd) Help() string {
	return `Starts a simulated plant, MQTT broker, bridge, Kafka log, lake, models, live twin and page in one process, on loopback.
Ctrl-C stops it; the next start with the same --dir goes on where it was.

Examples:
  headrace up
  headrace up --plant demo:seed=7 --speed 4
  headrace up --plant none
  headrace up --replay cwru:recordings --speed max
  headrace up --replay skab:recordings --speed 60
  headrace up --replay skab:recordings --filters none --speed max --until-drained`
}

// Run runs every role until Ctrl-C or until the source has drained.
func (c upCmd) Run(ctx context.Context, e *verb.Env) error {
	if c.Plant == "" && c.Replay == "" {
		c.Plant = defaultPlant
	}
	return c.start(ctx, e, roles.Options{Roles: roles.All()})
}

type runCmd struct {
	common
	Roles []string `help:"What this process does: edge, broker, bridge, spine, lake, predict, http." required:"" placeholder:"ROLE,…"`
	mqttFlags
	kafkaFlags
	BridgeGroup  string        `help:"Share the edge nodes with the other bridges of this name; their nodes move within 10 s when one fails." placeholder:"NAME"`
	TrimKafka    bool          `help:"Let an outside Kafka forget what bronze has committed. It takes what other readers have not read, too."`
	Lake         string        `help:"Folder of the lake, if several processes share one; its registry lies beside it." placeholder:"DIR" type:"path"`
	KafkaSession time.Duration `help:"How long a silent lake worker keeps its share." default:"10s"`
}

// Help shows examples.
func (runCmd) Help() string {
	return `Examples:
  headrace run --roles broker,bridge,spine,lake,predict,http --dir centre
  headrace run --roles edge --replay skab:recordings --mqtt tcp://127.0.0.1:1883 --dir edge
  headrace run --roles lake --kafka 127.0.0.1:9092 --lake centre/lake --dir worker-2
  headrace run --roles bridge,lake --mqtt ssl://broker:8883 --mqtt-ca ca.pem --mqtt-user plant --mqtt-password-file mqtt.password \
    --kafka kafka-1:9093,kafka-2:9093 --kafka-ca ca.pem --kafka-sasl SCRAM-SHA-512 --kafka-user headrace --kafka-password-file kafka.password`
}

// Run runs the chosen roles.
func (c runCmd) Run(ctx context.Context, e *verb.Env) error {
	rs, err := roles.Parse(c.Roles)
	if err != nil {
		return err
	}
	kafka, err := c.kafkaFlags.config()
	if err != nil {
		return err
	}
	secure := roles.Secure{KafkaTLS: kafka.TLS, KafkaSASL: kafka.SASL}
	if err := c.mqttFlags.secure(&secure); err != nil {
		return err
	}
	return c.start(ctx, e, roles.Options{
		Roles: rs, MQTT: c.MQTT, Kafka: c.Kafka, Secure: secure, TrimKafka: c.TrimKafka, BridgeGroup: c.BridgeGroup, Lake: c.Lake, KafkaSession: c.KafkaSession,
	})
}

func (c common) start(ctx context.Context, e *verb.Env, o roles.Options) (err error) {
	o.Speed, err = parseSpeed(c.Speed)
	if err != nil {
		return err
	}
	level := slog.LevelWarn
	if c.Verbose {
		level = slog.LevelInfo
	}
	o.Log = slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: level}))
	o.ListenMQTT, o.ListenKafka, o.ListenHTTP = c.ListenMQTT, c.ListenKafka, c.ListenHTTP
	o.AdvertiseKafka, o.Replay, o.Filters, o.UntilDrained = c.AdvertiseKafka, c.Replay, c.Filters, c.UntilDrained
	o.RegistryFile, o.PlainFile, o.RoutesFile, o.ForeignFile = c.Registry, c.Plain, c.Routes, c.Foreign
	if err := c.listenMQTTFlags.into(&o); err != nil {
		return err
	}
	if c.Plant != "none" {
		o.Plant = c.Plant
	}
	o.Version, o.Reached = version, crashpoint.Reached()
	o.Ready = func(r datadir.Run) { c.announce(e, o, r) }
	if err := o.Check(); err != nil {
		return err
	}
	o.Dir, err = datadir.Open(c.Dir, version, time.Now())
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// A plant's gateway has little memory, and the SQL engine takes its share.
		debug.SetGCPercent(gcPercent)
	}
	start := time.Now()
	summary, err := roles.Run(ctx, o)
	err = errors.Join(err, o.Dir.Close())
	if err != nil {
		return err
	}
	return c.conclude(e, summary, time.Since(start))
}

// gcPercent trades some time for a smaller heap.
const gcPercent = 50

// parseSpeed reads a positive number or "max".
func parseSpeed(s string) (float64, error) {
	if s == "max" {
		return roles.SpeedMax, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v > 0 && v <= 1e6) {
		return 0, fmt.Errorf("--speed %s is neither a number above 0 (at most 1000000) nor max", s)
	}
	return v, nil
}

// announce says once what the process does and where its page is.
func (c common) announce(e *verb.Env, o roles.Options, r datadir.Run) {
	if c.Output == "json" {
		_ = json.NewEncoder(e.Stdout).Encode(map[string]any{"ready": true, "run": r})
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "headrace %s: %s\n", version, strings.Join(r.Roles, ", "))
	for _, line := range [][2]string{{"MQTT", r.MQTT}, {"Kafka", r.Kafka}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "  %-6s %s\n", line[0], line[1])
		}
	}
	fmt.Fprintf(&b, "  %-6s %s\n", "state", o.Dir.Path())
	if o.Replay != "" || o.Plant != "" {
		speed := "as fast as it goes"
		if o.Speed != roles.SpeedMax {
			speed = fmt.Sprintf("%g plant seconds per second", o.Speed)
		}
		what, name := "replay", o.Replay
		if o.Plant != "" {
			what, name = "plant", o.Plant
		}
		fmt.Fprintf(&b, "  %-6s %s, filters %s, %s\n", what, name, o.Filters, speed)
	}
	if r.HTTP != "" {
		fmt.Fprintf(&b, "  %-6s http://%s/\n", "page", r.HTTP)
	}
	if o.UntilDrained {
		b.WriteString("ends when every reading is where it ends; Ctrl-C stops earlier\n")
	} else {
		b.WriteString("Ctrl-C stops it\n")
	}
	fmt.Fprint(e.Stdout, b.String())
}

func (c common) conclude(e *verb.Env, s roles.Summary, took time.Duration) error {
	if c.Output == "json" {
		return json.NewEncoder(e.Stdout).Encode(map[string]any{
			"drained": s.Drained, "seconds": took.Seconds(), "counters": s.Counters,
		})
	}
	what := "stopped; the next start goes on from here"
	if s.Drained {
		what = "drained: every reading is where it ends"
	}
	fmt.Fprintf(e.Stdout, "%s (%s)\n", what, took.Round(100*time.Millisecond))
	for _, counter := range s.Counters {
		if counter.Value != 0 {
			fmt.Fprintf(e.Stdout, "  %-8s %-24s %d\n", counter.Station, counter.Name, counter.Value)
		}
	}
	return nil
}
