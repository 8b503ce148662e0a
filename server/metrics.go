package server

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/headrace/headrace/signal"
)

// metrics serves the stations' counters, and what the Go runtime and the
// process say, to Prometheus.
func (s *Server) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(stationCollector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// stationCollector makes a metric of each counter at the time of asking.
type stationCollector struct{ s *Server }

// Describe says nothing: which counters there are shows only when they are asked.
func (stationCollector) Describe(chan<- *prometheus.Desc) {}

// Collect tells the counters.
func (c stationCollector) Collect(out chan<- prometheus.Metric) {
	for _, st := range stations(c.s.counters()) {
		for _, n := range st.Counters {
			kind, name := prometheus.CounterValue, "headrace_"+metricName(st.Station)+"_"+metricName(n.Name)
			if gauge, ok := strings.CutSuffix(name, "_now"); ok {
				kind, name = prometheus.GaugeValue, gauge
			} else {
				name = strings.TrimSuffix(name, "_total") + "_total"
			}
			help := n.Name + " of the station " + st.Station
			out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), kind, float64(n.Value))
		}
	}
	ready := 0.0
	if c.s.status().Ready {
		ready = 1
	}
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("headrace_ready", "1 once every role of the process serves", nil, nil), prometheus.GaugeValue, ready)
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("headrace_plant_time_seconds", "The plant's clock, seconds since 1970", nil, nil),
		prometheus.GaugeValue, float64(c.s.plantNow())/1e6)
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("headrace_twin_sensors", "Sensors that have a value", nil, nil),
		prometheus.GaugeValue, float64(c.s.opts.Twin.Len()))
}

// metricName leaves what Prometheus allows in a name.
func metricName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, s)
}

// stations groups counters by station, in the order in which they are given;
// equal names of one station (several edges in one process) are added up.
func stations(counters []signal.Counter) []Station {
	out := []Station{}
	station := map[string]int{}
	place := map[[2]string]int{}
	for _, c := range counters {
		i, ok := station[c.Station]
		if !ok {
			i = len(out)
			station[c.Station] = i
			out = append(out, Station{Station: c.Station, Counters: []StationCounter{}})
		}
		k, ok := place[[2]string{c.Station, c.Name}]
		if !ok {
			k = len(out[i].Counters)
			place[[2]string{c.Station, c.Name}] = k
			out[i].Counters = append(out[i].Counters, StationCounter{Name: c.Name})
		}
		out[i].Counters[k].Value += c.Value
	}
	return out
}
