// Package api is the wire: the AWS JSON 1.1 protocol over HTTP for KMS, and the query protocol for IAM and STS (query.go).
// Every request is a POST to /. In AWS JSON its X-Amz-Target header names the operation. A request is read, its signature
// verified (auth), its body decoded and checked against the published model of the service, and handed to the operation's
// method of kms.Service or iam.Service; errors become AWS's answers in one place (errors.go).
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
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"hsmkms/audit"
	"hsmkms/auth"
	"hsmkms/iam"
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
	IAM *iam.Service
	// Verify finds out who signed a request for one of some services; see auth.Verifier.
	Verify func(ctx context.Context, r *http.Request, body []byte, services []string) (auth.Identity, error)
	// Trail records a call, see audit.Trail; nil records none. Its context never ends: how long it may take is its own matter.
	Trail func(ctx context.Context, e *audit.Event) error
	// TrailRefuses gives why calls cannot be recorded at present, nil if they can. Nil for a Trail that never refuses any.
	TrailRefuses func() error
	// Timeout bounds the work for one request; 0 means 10 seconds.
	Timeout time.Duration
	// Rand is the source of request ids; nil means crypto/rand.
	Rand io.Reader
	// Metrics counts requests; nil counts into nowhere.
	Metrics *Metrics
	// Log gets one line a request; nil discards it.
	Log *slog.Logger
}

// Server answers the requests of the AWS KMS, IAM and STS APIs.
type Server struct {
	cfg           Config
	kms, iam, sts *service
	router        *mux.Router
	bodies        *bodies
}

// The services whose requests come in the two protocols, by their names in the scope of credentials.
var (
	jsonServices = []string{"kms"}
	formServices = []string{"iam", "sts"}
)

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
	s := &Server{cfg: cfg, bodies: newBodies()}
	var errs [3]error
	s.kms, errs[0] = newService("kms", kmsModel, served)
	s.iam, errs[1] = newService("iam", iamModel, servedIAM)
	s.sts, errs[2] = newService("sts", stsModel, servedSTS)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	s.router = mux.NewRouter().SkipClean(true)
	isRoot := func(r *http.Request, _ *mux.RouteMatch) bool { return r.URL.Path == "/" } // Path would do it with a regular expression
	s.router.Methods(http.MethodPost).MatcherFunc(isRoot).HandlerFunc(s.handle)
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
	start   time.Time
	http    *http.Request
	service *service
	// request is the request for KMS, and for the other services what all requests have.
	request kms.Request
	// roles are what a request for STS was about, as request.Keys are for KMS.
	roles []string
	body  []byte
	form  *form // in the query protocol, once it is read
	// input is what the body was decoded to, a pointer to the operation's input, without the plaintext; nil until then.
	input any
	// output is what the operation gave, a pointer; nil if it failed. It is wiped once it is encoded.
	output any
	sent   int
	err    error
}

// handle answers one request of the API.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	x := s.begin(r)
	in, out := getBuffer(), getBuffer()
	defer putBuffer(in)
	defer putBuffer(out)
	x.err = s.process(x, in, out)
	s.answer(w, x, out)
}

// handleOther answers what is not a POST to the root: such a request is no operation.
func (s *Server) handleOther(w http.ResponseWriter, r *http.Request) {
	x := s.begin(r)
	out := getBuffer()
	defer putBuffer(out)
	x.err = &kms.Error{Type: kms.UnknownOperation}
	s.answer(w, x, out)
}

func (s *Server) begin(r *http.Request) *exchange {
	x := &exchange{start: time.Now(), http: r, service: s.kms}
	if id, err := uuid.NewRandomFromReader(s.cfg.Rand); err == nil {
		x.request.ID = id.String()
	}
	x.request.Operation = unknownOperation
	return x
}

// process runs a request up to the body of its answer. A panic is an internal error of this request alone.
func (s *Server) process(x *exchange, in, out *bytes.Buffer) (err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(x.http.Context(), s.cfg.Timeout)
	defer cancel()
	services := jsonServices
	if isForm(x.http.Header.Get("Content-Type")) {
		services, x.service = formServices, s.iam // or STS, as the signature will tell
	}
	release, err := s.bodies.read(ctx, x.http, in)
	defer release()
	if err != nil {
		return err
	}
	x.body = in.Bytes()
	identity, err := s.cfg.Verify(ctx, x.http, x.body, services)
	if err != nil {
		return authError(err)
	}
	x.request.Caller, x.request.Region, x.request.Origin = identity.Caller, identity.Region, x
	if s.cfg.Trail != nil {
		x.request.Announce(s.cfg.Rand)
	}
	s.cfg.IAM.Used(identity.Caller.AccessKeyID, identity.Service, identity.Region)
	if identity.Service == s.sts.name {
		x.service = s.sts
	}
	e, err := x.endpoint()
	if err != nil {
		return err
	}
	result, err := s.call(ctx, x, e)
	x.output = result
	if unrecorded := s.trail(ctx, x, e, x.input, err); unrecorded != nil {
		wipe(result)
		return unrecorded
	}
	if err != nil {
		return err
	}
	if x.form != nil {
		x.service.writeResult(out, x, e, result)
		return nil
	}
	return encode(out, result)
}

// call runs the operation. A panic in it is its error, so that it is recorded like any other.
func (s *Server) call(ctx context.Context, x *exchange, e endpoint) (result any, err error) {
	defer recovered(&err)
	return e.call(ctx, &s.cfg, x, e.decoder)
}

// recovered, when it is deferred, makes an error of a panic.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// endpoint finds the operation that a request is for.
func (x *exchange) endpoint() (e endpoint, err error) {
	if x.service.model.query() {
		if x.form, err = parseForm(x.body); err != nil {
			return endpoint{}, err
		}
		name, e, err := x.service.action(x.form)
		if err == nil {
			x.request.Operation = name
		}
		return e, err
	}
	header := x.http.Header
	name, ok := strings.CutPrefix(header.Get("X-Amz-Target"), targetPrefix)
	e, known := x.service.endpoints[name]
	if !ok || !known || !acceptable(header.Get("Content-Type")) || header.Get("Content-Encoding") != "" {
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

// wipe wipes what is plaintext in the output of an operation.
func wipe(result any) {
	if w, ok := result.(wiper); ok {
		w.Wipe()
	}
}

// encode writes the output of an operation and wipes what of it was plaintext. Empty output is an empty body.
func encode(out *bytes.Buffer, result any) error {
	if _, empty := result.(*kms.Empty); empty {
		return nil
	}
	defer wipe(result)
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
	result := failure{status: http.StatusOK}
	if x.err != nil {
		out.Reset()
		result = x.service.describe(x.err)
		x.service.writeError(out, result, x.request.ID)
	}
	header := w.Header()
	values := []string{x.request.ID, contentType, strconv.Itoa(out.Len())} // in one piece of memory
	if x.service.model.query() {
		values[1] = xmlType
	}
	header["X-Amzn-Requestid"], header["Content-Type"], header["Content-Length"] = values[0:1:1], values[1:2:2], values[2:3:3]
	if kms.TypeOf(x.err) == kms.RequestEntityTooLarge {
		header["Connection"] = []string{"close"} // or net/http would wait for the rest before it answers
	}
	w.WriteHeader(result.status)
	sent, err := w.Write(out.Bytes())
	x.sent = sent
	if err != nil && x.err == nil {
		s.cfg.Log.Debug("client went away", "requestId", x.request.ID, "error", err)
	}
	s.record(x, result)
}

// record writes the log line of a request. It names the operation, the keys and the outcome, and holds nothing of the
// request's or the answer's content.
func (s *Server) record(x *exchange, result failure) {
	now := time.Now()
	took := now.Sub(x.start)
	s.cfg.Metrics.request(x.request.Operation, result.code, took)
	level, cause := slog.LevelInfo, causeOf(x.err)
	if result.status >= http.StatusInternalServerError && !errors.Is(cause, context.Canceled) { // a client that went away is no fault
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
		slog.String("code", result.code),
		slog.Int64("microseconds", took.Microseconds()),
		slog.Int("bytesIn", len(x.body)),
		slog.Int("bytesOut", x.sent))
	if cause != nil {
		line.AddAttrs(slog.String("cause", cause.Error()))
	}
	_ = handler.Handle(ctx, line) // a log that cannot be written has nowhere to say so
}

func principalARN(c *policy.Caller) string {
	if c == nil {
		return ""
	}
	return c.ARN
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
