package files

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a gateway may have no time zones of its own

	"github.com/headrace/headrace/signal"
)

// The formats of files.
const (
	CSV   = "csv"
	JSONL = "jsonl"
)

// Config says which files are read, and how.
type Config struct {
	// Dir is the folder that is watched, without the folders in it.
	Dir string `yaml:"dir" json:"dir"`
	// Pattern is what names must fit, by path.Match: "*.csv". "" is *.csv or *.jsonl.
	// Hidden files and those that end in .tmp, .part or ~ are nobody's yet.
	Pattern string `yaml:"pattern" json:"pattern,omitempty"`
	Format  string `yaml:"format" json:"format"` // csv or jsonl

	// Separator parts the cells of CSV: one character, or "tab"; "" is a comma.
	Separator string `yaml:"separator" json:"separator,omitempty"`
	// DecimalComma reads 1,5 as one and a half.
	DecimalComma bool `yaml:"decimal_comma" json:"decimal_comma,omitempty"`
	// NoHeader says that the first line is a row: columns are then called 1, 2, ….
	NoHeader bool `yaml:"no_header" json:"no_header,omitempty"`

	// Time is the column, or JSON key, of the time; "" takes the time at which the
	// row was read.
	Time string `yaml:"time" json:"time,omitempty"`
	// TimeFormat is rfc3339, unix, unix_ms, unix_us, unix_ns, or a layout that writes
	// 2006-01-02 15:04:05 as the file would; "" takes RFC 3339, the same without
	// offset and with a blank, and Unix milliseconds.
	TimeFormat string `yaml:"time_format" json:"time_format,omitempty"`
	// Zone is where a time without offset is meant, like Europe/Paris; "" is UTC.
	Zone string `yaml:"zone" json:"zone,omitempty"`

	// Asset is site/line/asset; {file} is the file's name without ending.
	Asset string `yaml:"asset" json:"asset,omitempty"`
	// Path is the column of a whole path, or with Asset of the sensor alone; the
	// value is then in the column Value. Without Path each column is a sensor.
	Path    string `yaml:"path" json:"path,omitempty"`
	Value   string `yaml:"value" json:"value,omitempty"`
	Unit    string `yaml:"unit" json:"unit,omitempty"`
	Quality string `yaml:"quality" json:"quality,omitempty"`
	// Columns names sensors; if it is empty, every column but Time is one, named
	// after its title.
	Columns []Column `yaml:"columns" json:"columns,omitempty"`

	// PollSeconds is how often the folder is looked at; 0 is 1.
	PollSeconds float64 `yaml:"poll_seconds" json:"poll_seconds,omitempty"`
	// LastLineSeconds is after how long without a change a last line without an end
	// is taken for whole; 0 is 60.
	LastLineSeconds float64 `yaml:"last_line_seconds" json:"last_line_seconds,omitempty"`
}

// Column is one sensor of a row.
type Column struct {
	Column string `yaml:"column" json:"column"` // its title, number, or JSON key
	Sensor string `yaml:"sensor" json:"sensor"`
	Unit   string `yaml:"unit" json:"unit,omitempty"` // UCUM
	Class  string `yaml:"class" json:"class,omitempty"`
}

// Set is a checked configuration.
type Set struct {
	Config
	separator byte
	zone      *time.Location
	layout    string // "" by TimeFormat
	poll      time.Duration
	lastLine  time.Duration
}

// New checks a configuration.
func New(c Config) (*Set, error) {
	s := &Set{Config: c, separator: ',', zone: time.UTC}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	return s, nil
}

func (s *Set) check() (err error) {
	if s.Dir == "" {
		return errors.New("dir is empty; name the folder that other programs write to")
	}
	switch s.Format {
	case CSV, JSONL:
	default:
		return fmt.Errorf("format %q is neither csv nor jsonl", s.Format)
	}
	if s.Pattern == "" {
		s.Pattern = "*." + s.Format
	}
	if _, err := filepath.Match(s.Pattern, "x"); err != nil || strings.Contains(s.Pattern, "/") {
		return fmt.Errorf("pattern %q is none for names; write it like *.csv", s.Pattern)
	}
	switch {
	case s.Separator == "tab":
		s.separator = '\t'
	case len(s.Separator) == 1 && !strings.ContainsAny(s.Separator, "\"\r\n"):
		s.separator = s.Separator[0]
	case s.Separator != "":
		return fmt.Errorf("separator %q is not one character, nor tab", s.Separator)
	}
	if s.DecimalComma && s.separator == ',' {
		return errors.New("decimal_comma needs another separator, like ;")
	}
	if s.Format == JSONL && (s.Separator != "" || s.DecimalComma || s.NoHeader) {
		return errors.New("separator, decimal_comma and no_header are for csv")
	}
	if s.zone, err = time.LoadLocation(s.Zone); err != nil {
		return fmt.Errorf("zone %q: %w; write it like Europe/Paris", s.Zone, err)
	}
	switch s.TimeFormat {
	case "", "rfc3339", "unix", "unix_ms", "unix_us", "unix_ns":
	default:
		if !strings.Contains(s.TimeFormat, "06") || !strings.Contains(s.TimeFormat, "2") {
			return fmt.Errorf("time_format %q is not rfc3339, unix, unix_ms, unix_us, unix_ns or a layout like 02.01.2006 15:04:05", s.TimeFormat)
		}
		s.layout = s.TimeFormat
	}
	for _, n := range []struct {
		key      string
		value    float64
		byItself time.Duration
		to       *time.Duration
	}{{"poll_seconds", s.PollSeconds, time.Second, &s.poll}, {"last_line_seconds", s.LastLineSeconds, time.Minute, &s.lastLine}} {
		if !(n.value >= 0 && n.value <= 1e6) {
			return fmt.Errorf("%s is %v; want 0 to a million", n.key, n.value)
		}
		*n.to = n.byItself
		if n.value > 0 {
			*n.to = max(time.Duration(n.value*float64(time.Second)), time.Millisecond)
		}
	}
	return s.checkNames()
}

func (s *Set) checkNames() error {
	if s.Asset != "" {
		if _, err := s.asset("x"); err != nil {
			return fmt.Errorf("asset %q: %w", s.Asset, err)
		}
	}
	if s.Path != "" {
		if s.Value == "" {
			return errors.New("path needs value, the column of the value")
		}
		if len(s.Columns) > 0 {
			return errors.New("columns are for rows without path")
		}
		return nil
	}
	if s.Value != "" || s.Unit != "" || s.Quality != "" {
		return errors.New("value, unit and quality need path, the column that says whose they are")
	}
	if s.Asset == "" {
		return errors.New("neither asset nor path says where the readings belong; give asset: site/line/asset, or path: the column of the path")
	}
	var sensors []string
	for i, c := range s.Columns {
		if err := signal.CheckName(c.Sensor); err != nil {
			return fmt.Errorf("column %d: sensor: %w", i+1, err)
		}
		if c.Column == "" || slices.Contains(sensors, c.Sensor) {
			return fmt.Errorf("column %d: it has no title, or sensor %s stands twice", i+1, c.Sensor)
		}
		if c.Class != "" && c.Class != string(signal.Telemetry) && c.Class != string(signal.Event) {
			return fmt.Errorf("column %d: class %q is neither telemetry nor event", i+1, c.Class)
		}
		sensors = append(sensors, c.Sensor)
	}
	return nil
}

// asset is that of a file, whose stem is clean.
func (s *Set) asset(stem string) (signal.Asset, error) {
	return signal.ParseAsset(strings.ReplaceAll(s.Asset, "{file}", stem))
}

// takes tells whether a file's name is one to read.
func (s *Set) takes(name string) bool {
	for _, end := range []string{".tmp", ".part", "~"} {
		if strings.HasSuffix(name, end) {
			return false
		}
	}
	ok, _ := filepath.Match(s.Pattern, name) // New has looked at it
	return ok && !strings.HasPrefix(name, ".")
}

// time reads a time; text is as the file has it.
func (s *Set) time(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	if s.layout != "" {
		t, err := time.ParseInLocation(s.layout, text, s.zone)
		if err != nil {
			return t, fmt.Errorf("time %.40q is not like %s", text, s.layout)
		}
		return plausible(t)
	}
	unit := map[string]float64{"": 1e3, "unix": 1e6, "unix_ms": 1e3, "unix_us": 1, "unix_ns": 1e-3}[s.TimeFormat]
	if s.TimeFormat == "" || s.TimeFormat == "rfc3339" {
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00"} {
			if t, err := time.Parse(layout, text); err == nil {
				return plausible(t)
			}
		}
		if s.TimeFormat == "" {
			for _, layout := range []string{time.DateTime, "2006-01-02T15:04:05"} {
				if t, err := time.ParseInLocation(layout, text, s.zone); err == nil {
					return plausible(t)
				}
			}
		}
	}
	if unit > 0 {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && unit >= 1 && n < 1<<62/int64(unit) && n > -1<<62/int64(unit) {
			return plausible(time.UnixMicro(n * int64(unit)))
		}
		if v, err := strconv.ParseFloat(text, 64); err == nil && v*unit > -1<<62 && v*unit < 1<<62 {
			return plausible(time.UnixMicro(int64(v * unit)))
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is not a time by time_format %q", text, s.TimeFormat)
}

// plausible refuses what is no time of a plant but a fault.
func plausible(t time.Time) (time.Time, error) {
	if y := t.Year(); y < 1900 || y > 2199 {
		return t, fmt.Errorf("the year %d is none of a plant's", y)
	}
	return t.UTC(), nil
}
