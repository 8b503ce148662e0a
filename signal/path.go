package signal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxNameBytes bounds one name of a path (site, line, asset or sensor).
const MaxNameBytes = 200

// Path names a sensor: site/line/asset/sensor.
type Path string

// Asset names a machine: site/line/asset. It is the key of the spine.
type Asset string

// CheckName reports why s cannot be a site, line, asset or sensor: it must be
// UTF-8, not empty, at most [MaxNameBytes], without / + # : or control
// characters.
func CheckName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("name is empty")
	case len(s) > MaxNameBytes:
		return fmt.Errorf("name of %d bytes is longer than %d", len(s), MaxNameBytes)
	case !utf8.ValidString(s):
		return fmt.Errorf("name %q is not UTF-8", s)
	}
	for _, r := range s {
		if strings.ContainsRune("/+#:", r) || unicode.IsControl(r) {
			return fmt.Errorf("name %q holds %q; / + # : and control characters are not allowed", s, r)
		}
	}
	return nil
}

// ParsePath checks and returns a path of four names.
func ParsePath(s string) (Path, error) {
	if err := checkParts(s, 4, "site/line/asset/sensor"); err != nil {
		return "", err
	}
	return Path(s), nil
}

// ParseAsset checks and returns an asset of three names.
func ParseAsset(s string) (Asset, error) {
	if err := checkParts(s, 3, "site/line/asset"); err != nil {
		return "", err
	}
	return Asset(s), nil
}

func checkParts(s string, n int, form string) error {
	if got := strings.Count(s, "/") + 1; got != n {
		return fmt.Errorf("%q has %d names, want %d: %s", s, got, n, form)
	}
	for name := range strings.SplitSeq(s, "/") {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
	}
	return nil
}

// NewAsset joins three names. The names are not checked; see [ParseAsset].
func NewAsset(site, line, asset string) Asset { return Asset(site + "/" + line + "/" + asset) }

// Sensor returns the path of one of the asset's sensors.
func (a Asset) Sensor(name string) Path { return Path(string(a) + "/" + name) }

// Split returns the asset's three names; missing ones are empty.
func (a Asset) Split() (site, line, asset string) {
	site, rest, _ := strings.Cut(string(a), "/")
	line, asset, _ = strings.Cut(rest, "/")
	return site, line, asset
}

// Asset returns the first three names of p.
func (p Path) Asset() Asset {
	if i := strings.LastIndexByte(string(p), '/'); i >= 0 {
		return Asset(p[:i])
	}
	return ""
}

// Sensor returns the last name of p.
func (p Path) Sensor() string { return string(p[strings.LastIndexByte(string(p), '/')+1:]) }

// Class is the delivery class of a stream.
type Class string

// The classes: telemetry is superseded by the next reading, events (states,
// alarms) are not, raw are waveforms, refused is what a source could not take.
const (
	Telemetry Class = "telemetry"
	Event     Class = "event"
	Raw       Class = "raw"
	Refused   Class = "refused"
)

// Stream is the unit of order: one asset, one class, "site/line/asset:class".
type Stream string

// NewStream names the stream of an asset and class.
func NewStream(a Asset, c Class) Stream { return Stream(string(a) + ":" + string(c)) }

// Split returns the stream's asset and class.
func (s Stream) Split() (Asset, Class) {
	a, c, _ := strings.Cut(string(s), ":")
	return Asset(a), Class(c)
}

// ParseStream checks and returns a stream.
func ParseStream(s string) (Stream, error) {
	a, c, ok := strings.Cut(s, ":")
	if !ok {
		return "", fmt.Errorf("stream %q has no class; want site/line/asset:class", s)
	}
	if _, err := ParseAsset(a); err != nil {
		return "", fmt.Errorf("stream %q: %w", s, err)
	}
	switch Class(c) {
	case Telemetry, Event, Raw, Refused:
		return Stream(s), nil
	}
	return "", fmt.Errorf("stream %q: class %q is not telemetry, event, raw or refused", s, c)
}
