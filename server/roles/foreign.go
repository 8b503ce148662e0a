package roles

import (
	"fmt"
	"os"

	"github.com/headrace/headrace/internal/strictyaml"
	"github.com/headrace/headrace/spine/bridge"
)

// readForeign reads which Kafka topics others fill with MQTT messages.
func readForeign(file string) ([]bridge.Foreign, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading which topics others fill: %w", err)
	}
	var cfg struct {
		Topics []bridge.Foreign `yaml:"topics"`
	}
	if err := strictyaml.Decode(file, b, &cfg); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i, f := range cfg.Topics {
		if err := f.Check(); err != nil {
			return nil, fmt.Errorf("%s: topic %d: %w", file, i+1, err)
		}
		if seen[f.Topic] {
			return nil, fmt.Errorf("%s: topic %s stands there twice", file, f.Topic)
		}
		seen[f.Topic] = true
	}
	return cfg.Topics, nil
}
