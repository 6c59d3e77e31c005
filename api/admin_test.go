package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func get(t *testing.T, h http.Handler, path string) (status int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
	return w.Code, w.Body.String()
}

// TestReadyIsAskedOnceASecond has many ask at once, and a clock that stands still until it is moved.
func TestReadyIsAskedOnceASecond(t *testing.T) {
	var asked atomic.Int64
	var broken atomic.Bool
	now := atomic.Pointer[time.Time]{}
	start := time.Now()
	now.Store(&start)
	h := NewAdmin(AdminConfig{
		Metrics: NewMetrics(),
		Clock:   func() time.Time { return *now.Load() },
		Ready: map[string]func(context.Context) error{
			"store": func(context.Context) error { return nil },
			"token": func(ctx context.Context) error {
				asked.Add(1)
				_, bounded := ctx.Deadline()
				require.True(t, bounded)
				if broken.Load() {
					return errors.New("a cause that only the log may show")
				}
				return nil
			},
		},
	})
	done := make(chan struct{})
	for range 20 {
		go func() { get(t, h, "/readyz"); done <- struct{}{} }()
	}
	for range 20 {
		<-done
	}
	require.EqualValues(t, 1, asked.Load())

	broken.Store(true)
	status, body := get(t, h, "/readyz")
	require.Equal(t, http.StatusOK, status, "the last answer stands")
	require.Equal(t, "store ok\ntoken ok\n", body)
	later := start.Add(time.Second)
	now.Store(&later)
	status, body = get(t, h, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "store ok\ntoken failed\n", body)
	require.EqualValues(t, 2, asked.Load())

	status, body = get(t, h, "/livez")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ok\n", body)
	require.EqualValues(t, 2, asked.Load())
}
