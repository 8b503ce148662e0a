package harness

import (
	"encoding/csv"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Cell is one value of a recording, as the tests read it from the file.
type Cell struct {
	Path  string // site/line/asset/sensor
	Time  int64  // µs since the Unix epoch, UTC
	Value float64
}

// columnSensor names the sensors by hand, so that the tests share no code with
// the product's reader. Labels have no sensor.
var columnSensor = map[string]string{
	"Accelerometer1RMS":   "accelerometer1_rms",
	"Accelerometer2RMS":   "accelerometer2_rms",
	"Current":             "current",
	"Pressure":            "pressure",
	"Temperature":         "temperature",
	"Thermocouple":        "thermocouple",
	"Voltage":             "voltage",
	"Volume Flow RateRMS": "volume_flow_rate_rms",
	"anomaly":             "",
	"changepoint":         "",
	"Stranger":            "stranger",
}

// Columns are the sensor columns of a recording, in the files' order.
var Columns = []string{
	"Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure",
	"Temperature", "Thermocouple", "Voltage", "Volume Flow RateRMS",
}

// typical is a value of each column in normal running.
var typical = map[string]float64{
	"Accelerometer1RMS": 0.2, "Accelerometer2RMS": 0.27, "Current": 2.1, "Pressure": 0.38,
	"Temperature": 90, "Thermocouple": 26.8, "Voltage": 230, "Volume Flow RateRMS": 122, "Stranger": 7,
}

// Cells reads every value of a folder of recordings; each maps to how often it occurs.
func Cells(t testing.TB, dir string) map[Cell]int {
	t.Helper()
	cells := map[Cell]int{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(file) != ".csv" {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		return fileCells(file, asset(rel), cells)
	})
	if err != nil {
		t.Fatal(err)
	}
	return cells
}

// asset is the asset that a file of the folder is replayed as.
func asset(rel string) string {
	stem := strings.TrimSuffix(filepath.Base(rel), ".csv")
	line := filepath.ToSlash(filepath.Dir(rel))
	if line == "." {
		line = stem
	}
	return "skab/" + line + "/" + stem
}

func fileCells(file, asset string, cells map[Cell]int) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma = ';'
	rows, err := r.ReadAll()
	if err != nil {
		return err
	}
	for _, row := range rows[1:] {
		at, err := time.ParseInLocation(time.DateTime, row[0], time.UTC)
		if err != nil {
			return err
		}
		for i, text := range row[1:] {
			sensor, known := columnSensor[rows[0][i+1]]
			if !known {
				return fmt.Errorf("%s: column %q is not known to the tests", file, rows[0][i+1])
			}
			if sensor == "" {
				continue
			}
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return err
			}
			cells[Cell{asset + "/" + sensor, at.UnixMicro(), v}]++
		}
	}
	return nil
}

// Generated describes recordings made up for a test.
type Generated struct {
	Seed  uint64
	Files []string  // "valve1/0"
	Rows  int       // per file, one a second
	Start time.Time // of the first row
	// Extra names columns beyond [Columns].
	Extra []string
	// Put replaces single values: column and row of the first file.
	Put map[string]map[int]string
}

// Generate writes the recordings into dir.
func Generate(t testing.TB, dir string, g Generated) {
	t.Helper()
	if g.Start.IsZero() {
		g.Start = time.Date(2021, 5, 4, 6, 0, 0, 0, time.UTC)
	}
	rng := rand.New(rand.NewPCG(g.Seed, 7))
	columns := append(append([]string{}, Columns...), g.Extra...)
	for k, name := range g.Files {
		var b strings.Builder
		b.WriteString("datetime;" + strings.Join(columns, ";") + ";anomaly;changepoint\n")
		for row := range g.Rows {
			b.WriteString(g.Start.Add(time.Duration(row) * time.Second).Format(time.DateTime))
			for _, column := range columns {
				// What a pump loop in normal running shows.
				text := strconv.FormatFloat(typical[column]*(1+rng.Float64()/10), 'f', 6, 64)
				if put, ok := g.Put[column][row]; ok && k == 0 {
					text = put
				}
				b.WriteString(";" + text)
			}
			b.WriteString(";0.0;0.0\n")
		}
		file := filepath.Join(dir, name+".csv")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
