package api

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hsmkms/hsm"
)

// unknownOperation is the label of requests that name no operation; names from requests never become labels.
const unknownOperation = "unknown"

// Metrics are the service's Prometheus metrics. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *events
	calls    *events
}

// events counts and times what happens, by what it is and how it ended.
type events struct {
	count *prometheus.CounterVec
	time  *prometheus.HistogramVec

	mu     sync.RWMutex
	series map[[2]string]series // found by their labels before, because the vectors hash them at each look
}

type series struct {
	count prometheus.Counter
	time  prometheus.Observer
}

func (e *events) observe(what, outcome string, took time.Duration) {
	s := e.find([2]string{what, outcome})
	s.count.Inc()
	s.time.Observe(took.Seconds())
}

func (e *events) find(labels [2]string) series {
	e.mu.RLock()
	s, known := e.series[labels]
	e.mu.RUnlock()
	if known {
		return s
	}
	s = series{count: e.count.WithLabelValues(labels[0], labels[1]), time: e.time.WithLabelValues(labels[0])}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.series[labels] = s
	return s
}

// NewMetrics makes the metrics, with a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: newEvents([]string{"operation", "code"}, prometheus.CounterOpts{
			Name: "hsmkms_requests_total", Help: "Requests by operation and AWS error type (empty for success).",
		}, prometheus.HistogramOpts{
			Name: "hsmkms_request_seconds", Help: "Time to answer a request.", Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18),
		}),
		calls: newEvents([]string{"function", "class"}, prometheus.CounterOpts{
			Name: "hsmkms_token_calls_total", Help: "Calls into the PKCS#11 module by function and class of failure (empty for success).",
		}, prometheus.HistogramOpts{
			Name: "hsmkms_token_call_seconds", Help: "Time of calls into the PKCS#11 module.", Buckets: prometheus.ExponentialBuckets(1e-6, 4, 14),
		}),
	}
	m.registry.MustRegister(m.requests.count, m.requests.time, m.calls.count, m.calls.time,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func newEvents(labels []string, count prometheus.CounterOpts, times prometheus.HistogramOpts) *events {
	return &events{
		count:  prometheus.NewCounterVec(count, labels),
		time:   prometheus.NewHistogramVec(times, labels[:1]),
		series: map[[2]string]series{},
	}
}

// Token counts a call into the PKCS#11 module.
func (m *Metrics) Token(function string, class hsm.Class, took time.Duration) {
	m.calls.observe(function, string(class), took)
}

// Gauge adds a metric that is read when asked for.
func (m *Metrics) Gauge(name, help string, labels map[string]string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

func (m *Metrics) request(operation, code string, took time.Duration) {
	m.requests.observe(operation, code, took)
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
