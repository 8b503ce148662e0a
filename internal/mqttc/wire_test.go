package mqttc

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func FuzzReadPacket(f *testing.F) {
	for _, p := range []packets.ControlPacket{
		&packets.PublishPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Publish, Qos: 1}, TopicName: "a/b", MessageID: 7, Payload: []byte("x")},
		&packets.SubackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Suback}, MessageID: 7, ReturnCodes: []byte{1}},
	} {
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0})
	f.Add([]byte{0x32, 2, 0, 0})
	f.Fuzz(func(_ *testing.T, data []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(data), 64)
		for {
			if _, err := readPacket(in, 1<<10); err != nil {
				return
			}
		}
	})
}

func TestReadPacketRefusesBeforeAllocating(t *testing.T) {
	// 256 MiB are announced, none of it comes.
	head := []byte{0x30, 0xff, 0xff, 0xff, 0x7f}
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := readPacket(bufio.NewReaderSize(bytes.NewReader(head), 64), 1<<20); err == nil {
			t.Error("a packet beyond the limit was read")
		}
	})
	if allocs > 10 {
		t.Errorf("%v allocations", allocs)
	}
}
