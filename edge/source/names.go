package source

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// snake turns a column's title into a sensor's name: "Volume Flow RateRMS"
// becomes volume_flow_rate_rms. Blanks and hyphens part words, as does a
// capital after a small letter or a digit and the last capital of a run before
// a small letter.
func snake(title string) string {
	var out strings.Builder
	rs := []rune(strings.TrimSpace(title))
	parted := true // nothing to part from
	for i, r := range rs {
		if unicode.IsSpace(r) || r == '-' || r == '_' {
			if !parted {
				out.WriteByte('_')
				parted = true
			}
			continue
		}
		if !parted && unicode.IsUpper(r) && i > 0 {
			last := rs[i-1]
			followed := i+1 < len(rs) && unicode.IsLower(rs[i+1])
			if unicode.IsLower(last) || unicode.IsDigit(last) || unicode.IsUpper(last) && followed {
				out.WriteByte('_')
			}
		}
		out.WriteRune(unicode.ToLower(r))
		parted = false
	}
	return strings.TrimSuffix(out.String(), "_")
}

// clean percent-encodes what a name may not hold: / + # : and control
// characters, bytes that are no UTF-8, and the percent sign itself, so that
// different names stay different.
func clean(name string) string {
	ok := true
	for _, r := range name {
		ok = ok && !bad(r)
	}
	if ok {
		return name
	}
	var out strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if bad(r) {
			for _, b := range []byte(name[i : i+n]) {
				fmt.Fprintf(&out, "%%%02X", b)
			}
		} else {
			out.WriteString(name[i : i+n])
		}
		i += n
	}
	return out.String()
}

func bad(r rune) bool {
	return strings.ContainsRune("/+#:%", r) || unicode.IsControl(r) || r == utf8.RuneError
}

// labels are columns that say what happened and are no measurement.
func isLabel(sensor string) bool { return sensor == "anomaly" || sensor == "changepoint" }

// unitOf is the UCUM unit of a known column, "" of others.
func unitOf(sensor string) string {
	switch {
	case strings.HasPrefix(sensor, "accelerometer"):
		return "[g]"
	case sensor == "current":
		return "A"
	case sensor == "pressure":
		return "bar"
	case sensor == "temperature", sensor == "thermocouple":
		return "Cel"
	case sensor == "voltage":
		return "V"
	case sensor == "volume_flow_rate_rms":
		return "L/min"
	}
	return ""
}

// SensorName makes a sensor's name of a column's title: "Volume Flow RateRMS"
// becomes volume_flow_rate_rms, and what a name may not hold %XX.
func SensorName(title string) string { return clean(snake(title)) }

// CleanName writes what a name may not hold as %XX.
func CleanName(name string) string { return clean(name) }
