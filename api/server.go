// Package api is the wire: the AWS JSON 1.1 protocol over HTTP. Every request is a POST to / whose X-Amz-Target header
// names the operation. A request is read, its signature verified (auth), its body decoded and checked against the
// published model of the service, and handed to the operation's method of kms.Service; errors become AWS's answers in
// one place (errors.go).
//
// The order of the checks is AWS's, as far as it can be seen from outside: signature, target, content type, form of the
// body, constraints of the members, and then what the operation itself checks.
package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"hsmkms/auth"
	"hsmkms/kms"
	"hsmkms/policy"
)

const (
	// targetPrefix stands before the operation in X-Amz-Target.
	targetPrefix = "TrentService."
	contentType  = "application/x-amz-json-1.1"
)

// Config describes a Server.
type Config struct {
	KMS *kms.Service
	// Verify finds out who signed a request; see auth.Verifier.
	Verify func(ctx context.Context, r *http.Request, body []byte) (auth.Identity, error)
	// Timeout bounds the work for one request; 0 means 10 seconds.
	Timeout time.Duration
	// Rand is the source of request ids; nil means crypto/rand.
	Rand io.Reader
	// Metrics counts requests; nil counts into nowhere.
	Metrics *Metrics
	// Log gets one line a request; nil discards it.
	Log *slog.Logger
}

// Server answers the requests of the AWS KMS API.
type Server struct {
	cfg       Config
	model     *model
	endpoints map[string]endpoint
	router    *mux.Router
	bodies    *bodies
}

// NewServer makes a Server. It fails if the operations do not fit the published model.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m, err := loadModel()
	if err != nil {
		return nil, fmt.Errorf("loading service model: %w", err)
	}
	s := &Server{cfg: cfg, model: m, bodies: newBodies()}
	if s.endpoints, err = endpoints(m); err != nil {
		return nil, err
	}
	s.router = mux.NewRouter().SkipClean(true)
	s.router.Methods(http.MethodPost).Path("/").HandlerFunc(s.handle)
	s.router.NotFoundHandler = http.HandlerFunc(s.handleOther)
	s.router.MethodNotAllowedHandler = s.router.NotFoundHandler
	return s, nil
}

// ServeHTTP implements http.Handler. It asks the router for the handler instead of letting it serve: that would clone the
// request twice to keep route variables in its context, and there are none.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var match mux.RouteMatch
	s.router.Match(r, &match) // always finds one of the three handlers of NewServer
	match.Handler.ServeHTTP(w, r)
}

// exchange is one request and what became of it.
type exchange struct {
	start    time.Time
	request  kms.Request
	sent     int
	received int
	err      error
}

// handle answers one request of the API.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	x := s.begin()
	in, out := getBuffer(), getBuffer()
	defer putBuffer(in)
	defer putBuffer(out)
	x.err = s.process(r, x, in, out)
	s.answer(w, x, out)
}

// handleOther answers what is not a POST to the root: such a request is no operation.
func (s *Server) handleOther(w http.ResponseWriter, _ *http.Request) {
	x := s.begin()
	out := getBuffer()
	defer putBuffer(out)
	x.err = &kms.Error{Type: kms.UnknownOperation}
	s.answer(w, x, out)
}

func (s *Server) begin() *exchange {
	x := &exchange{start: time.Now()}
	if id, err := uuid.NewRandomFromReader(s.cfg.Rand); err == nil {
		x.request.ID = id.String()
	}
	x.request.Operation = unknownOperation
	return x
}

// process runs a request up to the body of its answer. A panic is an internal error of this request alone.
func (s *Server) process(r *http.Request, x *exchange, in, out *bytes.Buffer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
	defer cancel()
	release, err := s.bodies.read(ctx, r, in)
	defer release()
	if err != nil {
		return err
	}
	x.received = in.Len()
	identity, err := s.cfg.Verify(ctx, r, in.Bytes())
	if err != nil {
		return authError(err)
	}
	x.request.Caller, x.request.Region = &policy.Caller{Principal: *identity.Principal}, identity.Region
	x.circumstances(r)
	e, err := s.endpoint(r, x)
	if err != nil {
		return err
	}
	result, err := e.call(ctx, s.cfg.KMS, &x.request, e.decoder, in.Bytes())
	if err != nil {
		return err
	}
	return encode(out, result)
}

// circumstances enters what policies may be about besides the operation itself.
func (x *exchange) circumstances(r *http.Request) {
	x.request.Time = x.start
	x.request.UserAgent, x.request.Referer, x.request.Secure = r.UserAgent(), r.Referer(), r.TLS != nil
	if address, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		x.request.SourceIP = address.Addr().Unmap().WithZone("").String()
	}
}

// endpoint finds the operation that a request is for.
func (s *Server) endpoint(r *http.Request, x *exchange) (endpoint, error) {
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
	e, known := s.endpoints[name]
	if !ok || !known || !acceptable(r.Header.Get("Content-Type")) || r.Header.Get("Content-Encoding") != "" {
		return endpoint{}, &kms.Error{Type: kms.UnknownOperation}
	}
	x.request.Operation = name
	return e, nil
}

// acceptable tells whether a content type is AWS JSON. Another one is another protocol, in which there is no operation.
func acceptable(header string) bool {
	if header == contentType {
		return true
	}
	media, _, err := mime.ParseMediaType(header)
	return err == nil && (media == contentType || media == "application/x-amz-json-1.0")
}

// encode writes the output of an operation and wipes what of it was plaintext. Empty output is an empty body.
func encode(out *bytes.Buffer, result any) error {
	if _, empty := result.(*kms.Empty); empty {
		return nil
	}
	if w, ok := result.(wiper); ok {
		defer w.Wipe()
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(result); err != nil {
		return fmt.Errorf("encoding answer: %w", err)
	}
	out.Truncate(out.Len() - 1) // the encoder ends with a newline
	return nil
}

// answer writes the answer, the log line and the metrics.
func (s *Server) answer(w http.ResponseWriter, x *exchange, out *bytes.Buffer) {
	status := http.StatusOK
	if x.err != nil {
		out.Reset()
		status = s.writeError(out, x.err)
	}
	header := w.Header()
	header["X-Amzn-Requestid"] = []string{x.request.ID}
	header["Content-Type"] = []string{contentType}
	header["Content-Length"] = []string{strconv.Itoa(out.Len())}
	if kms.TypeOf(x.err) == kms.RequestEntityTooLarge {
		header["Connection"] = []string{"close"} // or net/http would wait for the rest before it answers
	}
	w.WriteHeader(status)
	sent, err := w.Write(out.Bytes())
	x.sent = sent
	if err != nil && x.err == nil {
		s.cfg.Log.Debug("client went away", "requestId", x.request.ID, "error", err)
	}
	s.record(x)
}

// record writes the log line of a request. It names the operation, the keys and the outcome, and holds nothing of the
// request's or the answer's content.
func (s *Server) record(x *exchange) {
	now := time.Now()
	took := now.Sub(x.start)
	code := kms.TypeOf(x.err)
	s.cfg.Metrics.request(x.request.Operation, code, took)
	level, cause := slog.LevelInfo, causeOf(x.err)
	if s.isFault(code) && !errors.Is(cause, context.Canceled) { // a client that went away is no fault
		level = slog.LevelError
	}
	// The handler is called directly, because Logger would look up a source line that the log does not show.
	handler, ctx := s.cfg.Log.Handler(), context.Background()
	if !handler.Enabled(ctx, level) {
		return
	}
	line := slog.NewRecord(now, level, "request", 0)
	line.AddAttrs(
		slog.String("requestId", x.request.ID),
		slog.String("operation", x.request.Operation),
		slog.String("keys", strings.Join(x.request.Keys, " ")),
		slog.String("principal", principalARN(x.request.Caller)),
		slog.String("code", string(code)),
		slog.Int64("microseconds", took.Microseconds()),
		slog.Int("bytesIn", x.received),
		slog.Int("bytesOut", x.sent))
	if cause != nil {
		line.AddAttrs(slog.String("cause", cause.Error()))
	}
	_ = handler.Handle(ctx, line) // a log that cannot be written has nowhere to say so
}

func principalARN(p *policy.Caller) string {
	if p == nil {
		return ""
	}
	return p.ARN
}

// causeOf gives what the log says of an error besides its type: never its message, which may repeat the request.
func causeOf(err error) error {
	var shown *kms.Error
	if errors.As(err, &shown) {
		return shown.Cause
	}
	return err
}

// buffers holds the bodies of requests and answers, wiped.
var buffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 4096)) }}

func getBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	b.Reset()
	space := b.AvailableBuffer()
	clear(space[:cap(space)])
	if cap(space) <= 64<<10 {
		buffers.Put(b)
	}
}
