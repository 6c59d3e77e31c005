package api

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hsmkms/hsm"
	"hsmkms/kms"
)

// unknownOperation is the label of requests that name no operation; names from requests never become labels.
const unknownOperation = "unknown"

// Metrics are the service's Prometheus metrics. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	calls    *prometheus.CounterVec
	calling  *prometheus.HistogramVec
}

// NewMetrics makes the metrics, with a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hsmkms_requests_total", Help: "Requests by operation and AWS error type (empty for success).",
		}, []string{"operation", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hsmkms_request_seconds", Help: "Time to answer a request.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18),
		}, []string{"operation"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hsmkms_token_calls_total", Help: "Calls into the PKCS#11 module by function and class of failure (empty for success).",
		}, []string{"function", "class"}),
		calling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hsmkms_token_call_seconds", Help: "Time of calls into the PKCS#11 module.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 14),
		}, []string{"function"}),
	}
	m.registry.MustRegister(m.requests, m.latency, m.calls, m.calling,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Token counts a call into the PKCS#11 module.
func (m *Metrics) Token(function string, class hsm.Class, took time.Duration) {
	m.calls.WithLabelValues(function, string(class)).Inc()
	m.calling.WithLabelValues(function).Observe(took.Seconds())
}

// Gauge adds a metric that is read when asked for.
func (m *Metrics) Gauge(name, help string, labels map[string]string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

func (m *Metrics) request(operation string, code kms.ErrorType, took time.Duration) {
	m.requests.WithLabelValues(operation, string(code)).Inc()
	m.latency.WithLabelValues(operation).Observe(took.Seconds())
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
