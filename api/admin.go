package api

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/mux"
)

// AdminConfig describes the administrative endpoints.
type AdminConfig struct {
	Metrics *Metrics
	// Ready checks what the service needs, by name, and fails when it is not usable.
	Ready map[string]func(context.Context) error
	// Every is for how long an answer of /readyz stands, so that asking often costs the token nothing; 0 means a second.
	Every time.Duration
	// Timeout bounds the checks; 0 means 2 seconds.
	Timeout time.Duration
	Clock   func() time.Time
	Log     *slog.Logger
}

// NewAdmin makes the handler of the administrative listener: /livez says that the process answers, and never touches
// the token; /readyz says that it can do its work; /metrics is for Prometheus. None needs a signature, so the listener
// must not be open to the world.
func NewAdmin(cfg AdminConfig) http.Handler {
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	router := mux.NewRouter()
	router.Path("/livez").HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	router.Path("/readyz").Handler(&readiness{cfg: cfg})
	router.Path("/metrics").Handler(cfg.Metrics.handler())
	return router
}

// readiness answers /readyz. One check runs at a time, and its outcome serves all who ask until it is too old.
type readiness struct {
	cfg AdminConfig

	mu      sync.Mutex
	checked time.Time
	report  string
	ready   bool
}

func (h *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	report, ready := h.check()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprint(w, report)
}

// check gives a line for each thing that was checked. Causes go to the log.
func (h *readiness) check() (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.cfg.Clock(); h.report == "" || now.Sub(h.checked) >= h.cfg.Every {
		h.report, h.ready = h.run()
		h.checked = h.cfg.Clock()
	}
	return h.report, h.ready
}

func (h *readiness) run() (report string, ready bool) {
	ctx, cancel := context.WithTimeout(context.Background(), h.cfg.Timeout)
	defer cancel()
	ready = true
	for _, name := range slices.Sorted(maps.Keys(h.cfg.Ready)) {
		state := "ok"
		if err := h.cfg.Ready[name](ctx); err != nil {
			h.cfg.Log.Error("not ready", "what", name, "error", err)
			state, ready = "failed", false
		}
		report += name + " " + state + "\n"
	}
	return report, ready
}
