package edge_test

import (
	"os"
	"testing"

	"github.com/headrace/headrace/record"
)

// The codec of waveforms makes its channels when it is first used. A bubble of
// virtual time may not be the first: they would be of that bubble alone.
func TestMain(m *testing.M) {
	block := record.AppendWaveform(nil, &record.Waveform{Rate: 1, Format: record.FormatI16, Scale: 1, Samples: make([]byte, 1000)})
	if err := record.DecodeWaveform(block, &record.Waveform{}); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
