package delta

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkParseStats parses the statistics of a table as wide as bronze.
func BenchmarkParseStats(b *testing.B) {
	schema := definition().Schema
	var lo, nulls []string
	for i := range 20 {
		name := fmt.Sprint("c", i)
		schema.Fields = append(schema.Fields, Field{Name: name, Type: String})
		lo = append(lo, fmt.Sprintf(`"%s":"text %d"`, name, i))
		nulls = append(nulls, fmt.Sprintf(`"%s":0`, name))
	}
	text := `{"numRecords":100,"minValues":{"event_time":"2024-01-01T00:00:00.000Z","value":1.5,` + strings.Join(lo, ",") + `},"maxValues":{"event_time":"2024-01-01T00:00:00.000Z",` +
		strings.Join(lo, ",") + `},"nullCount":{` + strings.Join(nulls, ",") + `}}`
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseStats(text, schema); err != nil {
			b.Fatal(err)
		}
	}
}
