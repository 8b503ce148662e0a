package sparkplug

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/headrace/headrace/signal"
)

// Namespace is the first level of every Sparkplug topic.
const Namespace = "spBv1.0"

// MessageType is the third level of a Sparkplug topic (the second of a STATE's).
type MessageType string

// The message types.
const (
	NBirth MessageType = "NBIRTH"
	NDeath MessageType = "NDEATH"
	DBirth MessageType = "DBIRTH"
	DDeath MessageType = "DDEATH"
	NData  MessageType = "NDATA"
	DData  MessageType = "DDATA"
	NCmd   MessageType = "NCMD"
	DCmd   MessageType = "DCMD"
	StateT MessageType = "STATE"
)

// parseType reads a message type; ofDevice tells whether its topics have a fifth
// level, the device.
func parseType(s string) (t MessageType, ofDevice, ok bool) {
	switch t = MessageType(s); t {
	case NBirth, NDeath, NData, NCmd:
		return t, false, true
	case DBirth, DDeath, DData, DCmd:
		return t, true, true
	}
	return "", false, false
}

// Topic is a parsed Sparkplug topic. Names are in the clear: in a topic's levels
// blank, percent sign, asterisk and greater-than sign stand as %20, %25, %2A and
// %3E, since not every broker takes them.
type Topic struct {
	Type   MessageType
	Group  string
	Edge   string
	Device string // "" unless the type is one of a device
	Host   string // STATE only
}

// ParseTopic reads a topic and refuses what is none of Sparkplug's.
func ParseTopic(s string) (Topic, error) {
	rest, ok := strings.CutPrefix(s, Namespace+"/")
	if !ok {
		return Topic{}, fmt.Errorf("topic %q does not start with %s/", clip(s), Namespace)
	}
	group, rest, _ := strings.Cut(rest, "/")
	if group == string(StateT) && !strings.Contains(rest, "/") {
		t := Topic{Type: StateT, Host: unescape(rest)}
		return t, checkLevel(s, t.Host)
	}
	typ, rest, _ := strings.Cut(rest, "/")
	edge, device, more := strings.Cut(rest, "/")
	typed, ofDevice, ok := parseType(typ)
	if !ok {
		return Topic{}, fmt.Errorf("topic %q: %q is no Sparkplug message type", clip(s), clip(typ))
	}
	if more != ofDevice || strings.Contains(device, "/") {
		return Topic{}, fmt.Errorf("topic %q has the wrong number of levels for %s", clip(s), typed)
	}
	t := Topic{Type: typed, Group: unescape(group), Edge: unescape(edge), Device: unescape(device)}
	if err := checkLevel(s, t.Group); err != nil {
		return Topic{}, err
	}
	if err := checkLevel(s, t.Edge); err != nil {
		return Topic{}, err
	}
	if ofDevice {
		return t, checkLevel(s, t.Device)
	}
	return t, nil
}

// maxLevelBytes bounds an identifier in a topic: "line:asset" fits.
const maxLevelBytes = 2*signal.MaxNameBytes + 1

func checkLevel(topic, level string) error {
	switch {
	case level == "":
		return fmt.Errorf("topic %q has an empty level", clip(topic))
	case len(level) > maxLevelBytes:
		return fmt.Errorf("topic %q has a level of %d bytes, more than %d", clip(topic), len(level), maxLevelBytes)
	}
	return nil
}

// String writes the topic.
func (t Topic) String() string {
	if t.Type == StateT {
		return Namespace + "/STATE/" + escape(t.Host)
	}
	s := Namespace + "/" + escape(t.Group) + "/" + string(t.Type) + "/" + escape(t.Edge)
	if t.Device != "" {
		s += "/" + escape(t.Device)
	}
	return s
}

// EdgeID is how Headrace names an edge node everywhere else: "group/edge".
func (t Topic) EdgeID() string { return t.Group + "/" + t.Edge }

// StateTopic is where a host says whether it is online.
func StateTopic(host string) string { return Topic{Type: StateT, Host: host}.String() }

// CommandTopic is where an edge node listens for commands.
func CommandTopic(group, edge string) string {
	return Topic{Type: NCmd, Group: group, Edge: edge}.String()
}

// GroupFilter subscribes to all that the edge nodes of a group say.
func GroupFilter(group string) string { return Namespace + "/" + escape(group) + "/#" }

// AckTopic is where Headrace acknowledges an edge's messages.
func AckTopic(group, edge string) string {
	return "headrace/ack/" + EdgeLevels(group, edge)
}

// EdgeLevels are the levels of a topic that name an edge node.
func EdgeLevels(group, edge string) string { return escape(group) + "/" + escape(edge) }

// DeviceOf is the Sparkplug device of an asset: "line:asset".
func DeviceOf(a signal.Asset) string {
	_, line, asset := a.Split()
	return line + ":" + asset
}

// AssetOf is the asset of a device "line:asset" in a group, the site.
func AssetOf(group, device string) (signal.Asset, error) {
	line, asset, ok := strings.Cut(device, ":")
	if !ok {
		return "", fmt.Errorf("device %q is not line:asset", clip(device))
	}
	return signal.ParseAsset(group + "/" + line + "/" + asset)
}

// escaped is what brokers do not take in a topic, or take for their own
// wildcards, and the sign that it is escaped with.
const escaped = " %*>"

func escape(s string) string {
	if !strings.ContainsAny(s, escaped) {
		return s
	}
	out := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if strings.IndexByte(escaped, s[i]) >= 0 {
			out = fmt.Appendf(out, "%%%02X", s[i])
		} else {
			out = append(out, s[i])
		}
	}
	return string(out)
}

// unescape undoes escape and leaves all else as it is.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err == nil && strings.IndexByte(escaped, byte(c)) >= 0 {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// clip keeps what others sent from filling an error.
func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
