// Package mqttc is the MQTT 3.1.1 client that every part of Headrace uses: one
// [Conn] is one session with one broker, from CONNECT to the end of the
// socket.
//
// It does not reconnect, because each connection needs its own will (the
// Sparkplug bdSeq), it keeps no message after the connection is gone, because
// the edge's outbox and Kafka do, and it knows neither Sparkplug nor QoS 2.
//
// The wire format is that of Eclipse Paho's packets package. The session loop
// is our own: every wait ends with its context or with the connection,
// acknowledgement is manual, and nothing is left running after [Conn.Done].
package mqttc
