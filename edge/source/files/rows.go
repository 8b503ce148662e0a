package files

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

const (
	// maxRecordBytes bounds a row, and maxQuotedLines how many lines it may go over:
	// a quote that nobody closes must not swallow the file.
	maxRecordBytes = 256 << 10
	maxQuotedLines = 100
	maxColumns     = 10_000
)

// cut takes the first record of b: its bytes with their end, and how many lines
// they are. Without an end it is whole only if last says that no more comes; ok
// false asks for more bytes. A record beyond its bounds gives its first line, and
// why; that of a line without end, tooLong, is to be passed over as it is read.
func (s *Set) cut(b []byte, last bool) (record []byte, lines int64, why error, ok bool) {
	first := bytes.IndexByte(b, '\n') + 1
	if s.Format == JSONL || bytes.IndexByte(b[:first], '"') < 0 && first > 0 {
		switch {
		case first > 0 && first <= maxRecordBytes:
			return b[:first], 1, nil, true
		case first > 0:
			return b[:first], 1, errTooLong, true
		case len(b) >= maxRecordBytes:
			return b, 0, errTooLong, true
		case last && len(b) > 0:
			return b, 1, nil, true
		}
		return nil, 0, nil, false
	}
	unclosed := errors.New("a quote is opened and not closed")
	start, quoted := true, false
	for i := 0; i < len(b); i++ {
		if i >= maxRecordBytes || lines >= maxQuotedLines {
			break
		}
		switch c := b[i]; {
		case c == '"' && quoted:
			if i+1 < len(b) && b[i+1] == '"' {
				i++
				continue
			}
			quoted = false
		case c == '"' && start:
			quoted = true
		case c == '\n':
			lines++
			if !quoted {
				return b[:i+1], lines, nil, true
			}
		}
		start = b[i] == s.separator && !quoted
	}
	switch {
	case len(b) >= maxRecordBytes || lines >= maxQuotedLines || last && quoted:
		if first == 0 {
			if last && len(b) < maxRecordBytes {
				return b, 1, unclosed, len(b) > 0
			}
			return b, 0, errTooLong, true
		}
		return b[:first], 1, unclosed, true
	case last && len(b) > 0:
		return b, lines + 1, nil, true
	}
	return nil, 0, nil, false
}

var errTooLong = fmt.Errorf("the row is longer than %d bytes", maxRecordBytes)

// cells reads a record of CSV.
func (s *Set) cells(record []byte) ([]string, error) {
	r := csv.NewReader(bytes.NewReader(record))
	r.Comma, r.FieldsPerRecord = rune(s.separator), -1
	cells, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if where, ok := errors.AsType[*csv.ParseError](err); ok {
		err = fmt.Errorf("column %d: %w", where.Column, where.Err)
	}
	if err == nil && !utf8.Valid(record) {
		err = errors.New("it is not UTF-8")
	}
	return cells, err
}

// titles are a file's columns.
type titles struct {
	all     []string
	place   map[string]int
	sensors []column // by columns, if Path names none
}

type column struct {
	at    int
	name  string
	unit  string
	class signal.Class
}

// header reads a file's first record; n numbers the columns of one without titles.
func (s *Set) header(cells []string, n int) (*titles, error) {
	h := &titles{all: cells, place: map[string]int{}}
	if s.NoHeader {
		h.all = make([]string, n)
		for i := range h.all {
			h.all[i] = strconv.Itoa(i + 1)
		}
	}
	if len(h.all) > maxColumns {
		return nil, fmt.Errorf("%d columns are more than %d", len(h.all), maxColumns)
	}
	for i, title := range h.all {
		title = strings.TrimSpace(title)
		h.all[i] = title
		if _, twice := h.place[title]; !twice {
			h.place[title] = i
		}
	}
	for key, title := range map[string]string{"time": s.Time, "path": s.Path, "value": s.Value, "unit": s.Unit, "quality": s.Quality} {
		if _, ok := h.place[title]; title != "" && !ok {
			return nil, fmt.Errorf("there is no column %q (%s); there are %.300q", title, key, h.all)
		}
	}
	if s.Path != "" {
		return h, nil
	}
	if len(s.Columns) > 0 {
		for _, c := range s.Columns {
			at, ok := h.place[c.Column]
			if !ok {
				return nil, fmt.Errorf("there is no column %q; there are %.300q", c.Column, h.all)
			}
			h.sensors = append(h.sensors, column{at, c.Sensor, c.Unit, classOf(c.Class)})
		}
		return h, nil
	}
	taken := map[string]string{}
	for i, title := range h.all {
		if title == s.Time && s.Time != "" {
			continue
		}
		name := source.SensorName(title)
		if name == "" {
			name = "column_" + strconv.Itoa(i+1)
		}
		if err := signal.CheckName(name); err != nil {
			return nil, fmt.Errorf("column %d: %w; name it in columns", i+1, err)
		}
		if other, twice := taken[name]; twice {
			return nil, fmt.Errorf("columns %q and %q would both be sensor %s; name them in columns", other, title, name)
		}
		taken[name] = title
		h.sensors = append(h.sensors, column{at: i, name: name, class: signal.Telemetry})
	}
	return h, nil
}

func classOf(class string) signal.Class {
	if class == "" {
		return signal.Telemetry
	}
	return signal.Class(class)
}

// cell is a value of a row before it is a reading's.
type cell struct {
	text string
	raw  json.RawMessage // of JSON
}

// row reads a row of CSV.
func (s *Set) row(out []source.Sample, h *titles, asset signal.Asset, cells []string, arrived signal.Micros) ([]source.Sample, error) {
	if len(cells) != len(h.all) {
		return out, fmt.Errorf("the row has %d cells, the header %d", len(cells), len(h.all))
	}
	get := func(title string) (cell, bool) {
		i, ok := h.place[title]
		if !ok {
			return cell{}, false
		}
		return cell{text: cells[i]}, strings.TrimSpace(cells[i]) != ""
	}
	r, err := s.reading(get, arrived)
	if err != nil {
		return out, err
	}
	if s.Path != "" {
		return s.long(out, r, get, asset)
	}
	for _, c := range h.sensors {
		text := strings.TrimSpace(cells[c.at])
		if text == "" {
			continue // nothing was measured
		}
		x := source.Sample{Asset: asset, Class: c.class, Reading: r, Arrived: s.Time == ""}
		x.Reading.Sensor, x.Reading.Unit, x.Reading.Value = c.name, c.unit, s.value(text)
		out = append(out, x)
	}
	return out, nil
}

// object reads a line of JSON.
func (s *Set) object(out []source.Sample, asset signal.Asset, line []byte, arrived signal.Micros) ([]source.Sample, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return out, fmt.Errorf("the line is no JSON object: %w", err)
	}
	if !utf8.Valid(line) {
		return out, errors.New("it is not UTF-8")
	}
	get := func(key string) (cell, bool) {
		raw, ok := fields[key]
		if !ok || string(raw) == "null" {
			return cell{}, false
		}
		c := cell{raw: raw, text: string(raw)}
		if raw[0] == '"' {
			// It has been read once.
			_ = json.Unmarshal(raw, &c.text)
		}
		return c, true
	}
	r, err := s.reading(get, arrived)
	if err != nil {
		return out, err
	}
	if s.Path != "" {
		return s.long(out, r, get, asset)
	}
	add := func(key, sensor, unit string, class signal.Class) error {
		c, ok := get(key)
		if !ok {
			return nil
		}
		x := source.Sample{Asset: asset, Class: class, Reading: r, Arrived: s.Time == ""}
		x.Reading.Sensor, x.Reading.Unit = sensor, unit
		if x.Reading.Value, ok = c.value(s); !ok {
			return fmt.Errorf("%s: %.60s is neither number, text nor truth value", key, c.raw)
		}
		out = append(out, x)
		return nil
	}
	was := len(out)
	if len(s.Columns) > 0 {
		for _, c := range s.Columns {
			if err := add(c.Column, c.Sensor, c.Unit, classOf(c.Class)); err != nil {
				return out[:was], err
			}
		}
		return out, nil
	}
	keys := make([]string, 0, len(fields))
	for key := range fields {
		if key != s.Time {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		sensor := source.SensorName(key)
		if err := signal.CheckName(sensor); err != nil {
			return out[:was], fmt.Errorf("key %q: %w; name it in columns", key, err)
		}
		if err := add(key, sensor, "", signal.Telemetry); err != nil {
			return out[:was], err
		}
	}
	return out, nil
}

// reading begins a row's readings with their time.
func (s *Set) reading(get func(string) (cell, bool), arrived signal.Micros) (r signal.Reading, err error) {
	r = signal.Reading{EventTime: arrived, AliveAt: arrived, Quality: signal.QualityGood}
	if s.Time == "" {
		return r, nil
	}
	c, ok := get(s.Time)
	if !ok {
		return r, fmt.Errorf("there is no time in %q", s.Time)
	}
	at, err := s.time(c.text)
	if err != nil {
		return r, err
	}
	r.EventTime = signal.MicrosOf(at)
	r.AliveAt = r.EventTime
	return r, nil
}

// long reads a row that says whose its value is.
func (s *Set) long(out []source.Sample, r signal.Reading, get func(string) (cell, bool), asset signal.Asset) ([]source.Sample, error) {
	c, ok := get(s.Path)
	if !ok {
		return out, fmt.Errorf("there is no path in %q", s.Path)
	}
	name := strings.TrimSpace(c.text)
	if s.Asset != "" {
		r.Sensor = source.CleanName(name)
		if err := signal.CheckName(r.Sensor); err != nil {
			return out, err
		}
	} else {
		path, err := signal.ParsePath(name)
		if err != nil {
			return out, err
		}
		asset, r.Sensor = path.Asset(), path.Sensor()
	}
	if c, ok = get(s.Unit); ok && s.Unit != "" {
		r.Unit = strings.TrimSpace(c.text)
	}
	if c, ok = get(s.Quality); ok && s.Quality != "" {
		q, err := strconv.ParseUint(strings.TrimSpace(c.text), 10, 16)
		if err != nil {
			return out, fmt.Errorf("quality %.40q is none of OPC's numbers", c.text)
		}
		r.Quality = signal.Quality(q)
	}
	// A row without a value says that there was none.
	if c, ok = get(s.Value); ok {
		if r.Value, ok = c.value(s); !ok {
			return out, fmt.Errorf("%s: %.60s is neither number, text nor truth value", s.Value, c.raw)
		}
	} else if r.Quality.Good() {
		r.Quality = signal.QualityBad
	}
	return append(out, source.Sample{Asset: asset, Class: signal.Telemetry, Reading: r, Arrived: s.Time == ""}), nil
}

// value reads a cell of CSV: a number if it is one, else a text.
func (s *Set) value(text string) signal.Value {
	text = strings.TrimSpace(text)
	number := text
	if s.DecimalComma {
		number = strings.Replace(text, ",", ".", 1)
	}
	if v, err := strconv.ParseFloat(number, 64); err == nil && !strings.ContainsAny(number, "xX_") {
		return signal.NumberValue(v)
	}
	switch text {
	case "true", "TRUE", "True":
		return signal.BoolValue(true)
	case "false", "FALSE", "False":
		return signal.BoolValue(false)
	}
	return signal.TextValue(text)
}

// value reads a JSON value as what it is, or a cell.
func (c cell) value(s *Set) (signal.Value, bool) {
	if c.raw == nil {
		return s.value(c.text), true
	}
	switch c.raw[0] {
	case '"':
		return signal.TextValue(c.text), true
	case 't', 'f':
		return signal.BoolValue(c.raw[0] == 't'), true
	case '{', '[':
		return signal.Value{}, false
	}
	v, err := strconv.ParseFloat(c.text, 64)
	if math.IsInf(v, 0) {
		err = nil // larger than any number that can be kept
	}
	return signal.NumberValue(v), err == nil
}
