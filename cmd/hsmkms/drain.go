package main

import (
	"net/http"
	"sync/atomic"
	"time"
)

// lastCall is how long a client that was just answered has to send its next request, when the server is to end.
const lastCall = 500 * time.Millisecond

// drainable is a handler that can tell clients that an answer is the last on its connection. http.Server.Shutdown alone
// closes connections between two requests, whether or not the next is already on its way, and that one is lost.
type drainable struct {
	http.Handler
	ending atomic.Bool
}

// ServeHTTP implements http.Handler.
func (d *drainable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.Handler.ServeHTTP(drainableWriter{w, &d.ending}, r)
}

// sayLast has every answer from now on close its connection, and waits for clients that have not heard of it. When it
// returns, a connection between two requests has been silent for lastCall.
func (d *drainable) sayLast() {
	d.ending.Store(true)
	time.Sleep(lastCall)
}

type drainableWriter struct {
	http.ResponseWriter
	ending *atomic.Bool
}

// WriteHeader implements http.ResponseWriter.
func (w drainableWriter) WriteHeader(status int) {
	if w.ending.Load() {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}
