package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"hsmkms/kms"
)

// The models of the services that AWS publishes with its SDKs: that of KMS unchanged, of the others what model/trim.py
// leaves, which are the operations that are served.
var (
	//go:embed model/kms-2014-11-01.json
	kmsModel string
	//go:embed model/iam-2010-05-08.json
	iamModel string
	//go:embed model/sts-2011-06-15.json
	stsModel string
)

// model is the published description of the service: what each operation takes, gives and fails with. It is immutable
// after parseModel and safe for concurrent use.
type model struct {
	Metadata   metadata             `json:"metadata"`
	Version    string               `json:"version"`
	Operations map[string]operation `json:"operations"`
	Shapes     map[string]*shape    `json:"shapes"`

	// timestamp is the Go type of timestamps.
	timestamp reflect.Type
	// statuses are the HTTP statuses of the errors that have one, by their codes.
	statuses map[string]int
}

// metadata is what this code needs of a model's metadata.
type metadata struct {
	APIVersion   string `json:"apiVersion"`
	Protocol     string `json:"protocol"`
	XMLNamespace string `json:"xmlNamespace"`
}

// UnmarshalJSON takes what it needs. Of the rest nothing is a constraint.
func (m *metadata) UnmarshalJSON(text []byte) error {
	type needed metadata
	return json.Unmarshal(text, (*needed)(m))
}

// query tells whether the service speaks the query protocol: forms in, XML out.
func (m *model) query() bool { return m.Metadata.Protocol == "query" }

// operation is one row of the model. Output is the zero reference for an operation that answers with an empty body.
type operation struct {
	Name   string          `json:"name"`
	HTTP   json.RawMessage `json:"http"`
	Input  reference       `json:"input"`
	Output reference       `json:"output"`
	Errors []reference     `json:"errors"`
}

// reference names a shape.
type reference struct {
	Shape             string `json:"shape"`
	Deprecated        bool   `json:"deprecated"`
	DeprecatedMessage string `json:"deprecatedMessage"`
	ResultWrapper     string `json:"resultWrapper"`
}

// shape is a type of the wire. Min and Max bound the length of strings (UTF-16 units), blobs (bytes) and lists
// (elements), and the value of integers. Required and Enum are in the order in which error texts name their entries.
type shape struct {
	Type              string               `json:"type"`
	Members           map[string]reference `json:"members"`
	Required          []string             `json:"required"`
	Min               *int64               `json:"min"`
	Max               *int64               `json:"max"`
	Pattern           string               `json:"pattern"`
	Enum              []string             `json:"enum"`
	Member            *reference           `json:"member"`
	Key               *reference           `json:"key"`
	Value             *reference           `json:"value"`
	Sensitive         bool                 `json:"sensitive"`
	Exception         bool                 `json:"exception"`
	Fault             bool                 `json:"fault"`
	Deprecated        bool                 `json:"deprecated"`
	DeprecatedMessage string               `json:"deprecatedMessage"`
	Box               bool                 `json:"box"` // for SDKs: a value that is left out is not the zero value
	Error             *errorTrait          `json:"error"`

	// pattern is Pattern compiled to match a whole string; nil where there is none.
	pattern *regexp.Regexp
}

// errorTrait is what a model of the query protocol says of an error.
type errorTrait struct {
	Code           string `json:"code"`
	HTTPStatusCode int    `json:"httpStatusCode"`
	SenderFault    bool   `json:"senderFault"`
}

// parseModel is strict: a word that this code does not know could be a constraint that it would fail to enforce.
func parseModel(text string) (*model, error) {
	m := &model{}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("parsing the service model: %w", err)
	}
	m.timestamp = reflect.TypeFor[kms.Timestamp]()
	if m.query() {
		m.timestamp = reflect.TypeFor[time.Time]()
	}
	m.statuses = map[string]int{}
	for name, s := range m.Shapes {
		if s.Error != nil {
			m.statuses[s.Error.Code] = s.Error.HTTPStatusCode
		}
		if s.Pattern == "" {
			continue
		}
		var err error
		if s.pattern, err = compileJavaPattern(s.Pattern); err != nil {
			return nil, fmt.Errorf("compiling the pattern of shape %s: %w", name, err)
		}
	}
	return m, nil
}

// compileJavaPattern turns a pattern of the model, in Java's syntax, into one that matches whole strings. The two
// syntaxes differ in \uXXXX, which Go does not have, and in \s, which in Java includes the vertical tab; the model uses
// \s only within character classes.
func compileJavaPattern(pattern string) (*regexp.Regexp, error) {
	pattern = javaCodePoint.ReplaceAllString(pattern, `\x{$1}`)
	pattern = strings.ReplaceAll(pattern, `\s`, `[:space:]`)
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

var javaCodePoint = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`)

// operationNames gives the names of all operations in alphabetical order.
func (m *model) operationNames() []string { return slices.Sorted(maps.Keys(m.Operations)) }

// isFault tells whether the model calls an exception the server's fault (HTTP status 500). It is false for the client's
// errors (400) and for errors that the model does not list.
func (m *model) isFault(t kms.ErrorType) bool {
	s := m.Shapes[string(t)]
	return s != nil && s.Fault
}

// shapeNamed gives the shape that r refers to; the zero reference refers to a structure without members.
func (m *model) shapeNamed(r reference) (*shape, error) {
	if r.Shape == "" {
		return &shape{Type: "structure"}, nil
	}
	if s := m.Shapes[r.Shape]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("the model has no shape %q", r.Shape)
}

// memberOrder gives the names of a structure's members in the order in which they are checked and reported: the required
// ones as the model lists them, then the others by name.
func (s *shape) memberOrder() []string {
	order := slices.Clone(s.Required)
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		if !slices.Contains(s.Required, name) {
			order = append(order, name)
		}
	}
	return order
}
