// Package plain reads MQTT messages that are no Sparkplug: topics that name a
// sensor, payloads that are a number or a JSON object, and foreign namespaces by
// mapping rules.
//
// It is a codec without I/O: who subscribes, acknowledges and sets aside what
// fits nothing is its caller's. The forms are documented in docs/formats/plain-mqtt.md.
package plain
