package plain

import (
	"bytes"
	"strconv"

	"github.com/headrace/headrace/signal"
)

// quick reads the usual payload without a JSON decoder: one flat object of ts,
// value, unit and quality, each at most once, its value a number and its texts
// without escapes. Of anything else it returns false and leaves r as it was;
// [document] then decides. said is a unit that need not be copied again.
func quick(r *signal.Reading, p []byte, format timeFormat, said string) bool {
	p = bytes.TrimSpace(p)
	if len(p) < 2 || p[0] != '{' {
		return false
	}
	v := *r
	var had [4]bool
	once := func(i int) bool {
		again := had[i]
		had[i] = true
		return !again
	}
	p = p[1:]
	for {
		name, rest, ok := quoted(blank(p))
		if !ok {
			return false
		}
		if p = blank(rest); len(p) == 0 || p[0] != ':' {
			return false
		}
		raw, rest, ok := scalar(blank(p[1:]))
		if !ok {
			return false
		}
		switch string(name) {
		case "value":
			if ok = raw[0] != '"' && len(raw) <= 64 && once(0); ok {
				// Of what is written as a number only its range may be wrong.
				f, _ := strconv.ParseFloat(string(raw), 64)
				v.Value = signal.NumberValue(f)
			}
		case "ts":
			ok = raw[0] != '"' && once(1) && (millis(&v, raw, format) || setTime(&v, raw, format))
		case "unit":
			if ok = raw[0] == '"' && len(raw) <= 66 && once(2); ok {
				if raw = raw[1 : len(raw)-1]; string(raw) == said {
					v.Unit = said
				} else {
					v.Unit = string(raw)
				}
			}
		case "quality":
			ok = once(3) && setQuality(&v, raw)
		default:
			ok = false
		}
		if !ok {
			return false
		}
		if p = blank(rest); len(p) == 0 {
			return false
		}
		if p[0] == ',' {
			p = p[1:]
			continue
		}
		if p[0] != '}' || len(p) > 1 || !had[0] {
			return false
		}
		*r = v
		return true
	}
}

// millis reads the usual time: whole milliseconds of this century or two.
func millis(r *signal.Reading, raw []byte, format timeFormat) bool {
	if format != anyTime && format != unixMilli || len(raw) > 13 {
		return false
	}
	var ms int64
	for _, c := range raw {
		if c < '0' || c > '9' {
			return false
		}
		ms = ms*10 + int64(c-'0')
	}
	r.EventTime = signal.Micros(ms * 1000)
	return ms > 0
}

// blank passes over JSON's white space.
func blank(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t' || p[0] == '\n' || p[0] == '\r') {
		p = p[1:]
	}
	return p
}

// quoted is the text at the beginning, of printable ASCII without escapes.
func quoted(p []byte) (text, rest []byte, ok bool) {
	if len(p) == 0 || p[0] != '"' {
		return nil, nil, false
	}
	for i := 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '"':
			return p[1:i], p[i+1:], true
		case c == '\\' || c < ' ' || c > '~':
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// scalar is the number or text at the beginning, as it is written.
func scalar(p []byte) (raw, rest []byte, ok bool) {
	if text, rest, ok := quoted(p); ok {
		return p[:len(text)+2], rest, true
	}
	n := 0
	digits := func() bool {
		from := n
		for n < len(p) && p[n] >= '0' && p[n] <= '9' {
			n++
		}
		return n > from
	}
	if n < len(p) && p[n] == '-' {
		n++
	}
	from := n
	if !digits() || p[from] == '0' && n > from+1 {
		return nil, nil, false
	}
	if n < len(p) && p[n] == '.' {
		if n++; !digits() {
			return nil, nil, false
		}
	}
	if n < len(p) && (p[n] == 'e' || p[n] == 'E') {
		if n++; n < len(p) && (p[n] == '+' || p[n] == '-') {
			n++
		}
		if !digits() {
			return nil, nil, false
		}
	}
	return p[:n], p[n:], true
}
