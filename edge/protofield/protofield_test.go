package protofield

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestEach(t *testing.T) {
	p := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 300)
	p = protowire.AppendFixed32(protowire.AppendTag(p, 2, protowire.Fixed32Type), 7) // passed over
	p = protowire.AppendFixed64(protowire.AppendTag(p, 3, protowire.Fixed64Type), 1<<40)
	p = protowire.AppendString(protowire.AppendTag(p, 4, protowire.BytesType), "text")
	got := map[protowire.Number]uint64{}
	err := Each(p, func(num protowire.Number, u uint64, b []byte, at int) error {
		got[num] = u
		if num == 4 && (string(b) != "text" || string(p[at:at+len(b)]) != "text") {
			t.Errorf("%q at %d", b, at)
		}
		return nil
	})
	if err != nil || got[1] != 300 || got[3] != 1<<40 || len(got) != 4 {
		t.Errorf("%v, %v", got, err)
	}
	stop := errors.New("stop")
	if err := Each(p, func(protowire.Number, uint64, []byte, int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	for cut := 1; cut < len(p); cut++ {
		_ = Each(p[:cut], func(protowire.Number, uint64, []byte, int) error { return nil }) // no panic
	}
	if Each(p[:len(p)-1], func(protowire.Number, uint64, []byte, int) error { return nil }) == nil {
		t.Error("a torn message is whole")
	}
}
