package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/server/roles"
	"github.com/headrace/headrace/sparkplug"
	"github.com/headrace/headrace/spine/bridge"
	"github.com/headrace/headrace/spine/deadletter"
)

type deadletterCmd struct {
	List  deadletterListCmd  `cmd:"" help:"The dead letters that are open."`
	Show  deadletterShowCmd  `cmd:"" help:"One dead letter, with its bytes."`
	Retry deadletterRetryCmd `cmd:"" help:"Send dead letters again, and close those that are taken."`
}

// spineFlags say where Kafka is, for verbs that need nothing else.
type spineFlags struct {
	Dir string `help:"Data directory with the spine." default:"./headrace-data" type:"path"`
	kafkaFlags
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

type deadletterListCmd struct {
	All bool `help:"Those that were retried, too."`
	spineFlags
}

// Help shows examples.
func (deadletterListCmd) Help() string {
	return `Exit code 1 if there are open ones.

Examples:
  headrace deadletter list
  headrace deadletter list --all --kafka 127.0.0.1:9092 --output json`
}

// Run lists the letters.
func (c deadletterListCmd) Run(ctx context.Context, e *verb.Env) (err error) {
	s, err := openSpine(c.Dir, c.kafkaFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	all, err := deadletter.List(ctx, s.config, 0)
	if err != nil {
		return err
	}
	letters, open := []deadletter.Letter{}, 0
	for _, l := range all {
		if !l.Closed {
			open++
		}
		if !l.Closed || c.All {
			letters = append(letters, l)
		}
	}
	if c.Output == "json" {
		err = json.NewEncoder(e.Stdout).Encode(letters)
	} else {
		out := tabwriter.NewWriter(e.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(out, "letter\ttime\tbytes\ttopic\treason")
		for _, l := range letters {
			reason := l.Reason
			if l.Closed {
				reason = "(closed) " + reason
			}
			fmt.Fprintf(out, "%s\t%s\t%d\t%s\t%s\n", l.ID(), l.Time.Format(time.RFC3339), l.Bytes, l.Topic, reason)
		}
		fmt.Fprintf(out, "%d open\n", open)
		err = out.Flush()
	}
	if err == nil && open > 0 {
		return verb.ErrFound
	}
	return err
}

type deadletterShowCmd struct {
	Letter string `arg:"" help:"PARTITION/OFFSET, as list shows it."`
	spineFlags
}

// Help shows an example.
func (deadletterShowCmd) Help() string {
	return "Example:\n  headrace deadletter show 0/17"
}

// maxLetters bounds the bytes that are held of letters to be shown or sent.
const maxLetter = 16 << 20

// Run shows the letter.
func (c deadletterShowCmd) Run(ctx context.Context, e *verb.Env) (err error) {
	s, err := openSpine(c.Dir, c.kafkaFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	letters, err := chosen(ctx, s, []string{c.Letter})
	if err != nil {
		return err
	}
	l := letters[0]
	if c.Output == "json" {
		return json.NewEncoder(e.Stdout).Encode(struct {
			deadletter.Letter
			Refusal string `json:"refusal,omitempty"` // why it cannot be retried
			Value   []byte `json:"value"`             // base64
		}{l, l.Refusal(), l.Value()})
	}
	out := tabwriter.NewWriter(e.Stdout, 0, 4, 2, ' ', 0)
	for _, f := range [][2]string{
		{"letter", l.ID()},
		{"time", l.Time.Format(time.RFC3339Nano)},
		{"reason", l.Reason},
		{"topic", l.Topic},
		{"edge", l.Edge},
		{"boot", l.Boot},
		{"stream", l.Stream},
		{"n", l.N},
		{"cannot be retried", l.Refusal()},
	} {
		if f[1] != "" {
			fmt.Fprintf(out, "%s\t%s\n", f[0], f[1])
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.Stdout, "%d bytes\n%q\n", len(l.Value()), l.Value())
	return err
}

// chosen are the letters that were named, or all of them if none was.
func chosen(ctx context.Context, s spine, ids []string) ([]deadletter.Letter, error) {
	type place struct {
		partition int32
		offset    int64
	}
	wanted := map[place]string{}
	for _, id := range ids {
		p, o, err := deadletter.ParseID(id)
		if err != nil {
			return nil, err
		}
		wanted[place{p, o}] = id
	}
	all, err := deadletter.List(ctx, s.config, maxLetter)
	if err != nil {
		return nil, err
	}
	var out []deadletter.Letter
	for _, l := range all {
		if _, ok := wanted[place{l.Partition, l.Offset}]; ok || len(ids) == 0 {
			out = append(out, l)
			delete(wanted, place{l.Partition, l.Offset})
		}
	}
	for _, id := range wanted {
		return nil, fmt.Errorf("there is no dead letter %s; `headrace deadletter list --all` shows which there are", id)
	}
	return out, nil
}

type deadletterRetryCmd struct {
	Letters []string `arg:"" optional:"" help:"PARTITION/OFFSET, as list shows it."`
	All     bool     `help:"Every open letter that can be retried."`
	spineFlags
	mqttFlags
	Wait time.Duration `help:"How long one letter may take." default:"30s"`
}

// Help shows examples.
func (deadletterRetryCmd) Help() string {
	return `A record that Kafka found too large goes to its topic as it was; raise the topic's max.message.bytes before.
An MQTT message goes to the broker again, where a bridge must be online: it looks at it by the rules of today, and what fits
nothing becomes a new dead letter. Sparkplug data is not sent again: its names belong to a session that is over.
Exit code 1 if a letter was not taken.

Examples:
  headrace deadletter retry 0/17 0/18
  headrace deadletter retry --all --kafka 127.0.0.1:9092 --mqtt tcp://127.0.0.1:1883`
}

// outcome is what became of a letter.
type outcome struct {
	Letter string `json:"letter"`
	Sent   bool   `json:"sent"`
	Reason string `json:"reason,omitempty"`
}

// Run sends the letters.
func (c deadletterRetryCmd) Run(ctx context.Context, e *verb.Env) (err error) {
	if c.All == (len(c.Letters) > 0) {
		return errors.New("name the letters to retry, or give --all")
	}
	s, err := openSpine(c.Dir, c.kafkaFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	letters, err := chosen(ctx, s, c.Letters)
	if err != nil {
		return err
	}
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: s.config, MaxMessageBytes: maxLetter})
	if err != nil {
		return err
	}
	defer producer.Close()
	mqtt := &sender{cfg: mqttc.Config{Addresses: c.MQTT}}
	defer mqtt.close()
	var secure roles.Secure
	if err := c.secure(&secure); err != nil {
		return err
	}
	mqtt.cfg.TLS, mqtt.cfg.Username, mqtt.cfg.Password = secure.MQTTTLS, secure.MQTTLogin.User, secure.MQTTLogin.Password.Reveal()
	if run, ok := datadir.ReadRun(c.Dir); ok && len(c.MQTT) == 0 && run.MQTT != "" {
		mqtt.cfg.Addresses = []string{"tcp://" + run.MQTT}
	}
	ways := deadletter.Ways{MQTT: mqtt.publish, Kafka: func(ctx context.Context, r kafkac.Record) error { return produce(ctx, producer, r) }}

	outcomes, failed := []outcome{}, false
	for _, l := range letters {
		if c.All && l.Refusal() != "" {
			continue
		}
		o := outcome{Letter: l.ID(), Sent: true}
		ctx, cancel := context.WithTimeout(ctx, c.Wait)
		if err := deadletter.Retry(ctx, l, ways); err != nil {
			o.Sent, o.Reason, failed = false, err.Error(), true
		}
		cancel()
		outcomes = append(outcomes, o)
	}
	if c.Output == "json" {
		err = json.NewEncoder(e.Stdout).Encode(outcomes)
	} else {
		for _, o := range outcomes {
			said := "sent again and closed"
			if !o.Sent {
				said = o.Reason
			}
			fmt.Fprintf(e.Stdout, "%s  %s\n", o.Letter, said)
		}
		fmt.Fprintf(e.Stdout, "%d letters\n", len(outcomes))
	}
	if err == nil && failed {
		return verb.ErrFound
	}
	return err
}

// produce writes one record and waits until Kafka has it.
func produce(ctx context.Context, p *kafkac.Producer, r kafkac.Record) error {
	done := make(chan error, 1)
	if err := p.Produce(ctx, r, func(_ int32, _ int64, err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("Kafka has not answered: %w", ctx.Err())
	}
}

// sender publishes to a broker at which a bridge is.
type sender struct {
	cfg  mqttc.Config
	conn *mqttc.Conn
}

func (s *sender) publish(ctx context.Context, topic string, payload []byte) error {
	if len(s.cfg.Addresses) == 0 {
		return errors.New("no broker is known; name one with --mqtt tcp://HOST:PORT")
	}
	if s.conn == nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	return s.conn.Publish(ctx, topic, 1, false, payload)
}

// connect waits until a bridge says there that it is online: without one the
// message would go to nobody.
func (s *sender) connect(ctx context.Context) error {
	online := make(chan struct{})
	var once atomic.Bool
	cfg := s.cfg
	cfg.ClientID, cfg.CleanSession = "headrace-retry-"+uuid.NewString()[:8], true
	cfg.OnMessage = func(m mqttc.Message) {
		m.Ack()
		if state, err := sparkplug.ParseState(m.Payload); err == nil && state.Online && once.CompareAndSwap(false, true) {
			close(online)
		}
	}
	conn, err := mqttc.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	s.conn = conn
	if err := conn.Subscribe(ctx, map[string]byte{sparkplug.StateTopic(bridge.DefaultHostID): 1}); err != nil {
		return err
	}
	select {
	case <-online:
		return nil
	case <-conn.Done():
		return conn.Err()
	case <-ctx.Done():
		s.close()
		return errors.New("no bridge is online at the broker; start one, or wait until it is there")
	}
}

func (s *sender) close() {
	if s.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = s.conn.Close(ctx) // what counts was acknowledged
		cancel()
		s.conn = nil
	}
}
