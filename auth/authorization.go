package auth

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"

	// An SDK's Authorization header has about 300 bytes and ten signed headers.
	maxAuthorization = 4096
	maxSignedHeaders = 64
	maxAccessKeyID   = 128
)

// signed is what a request says about its own signature. The strings are parts of its headers.
type signed struct {
	accessKeyID string
	scope       string // day/region/service/term, as it stands in the credential
	day         string
	region      string
	service     string
	term        string
	headers     string // the names of the signed headers, separated by semicolons
	signature   string
	stamp       string // the date of the request, in the form YYYYMMDD'T'HHMMSS'Z'
	time        time.Time
}

// parseSigned reads the Authorization header and the date. It checks their form only.
func parseSigned(r *http.Request) (signed, error) {
	header := r.Header["Authorization"]
	if len(header) == 0 || header[0] == "" {
		return signed{}, missingToken()
	}
	if len(header) > 1 || len(header[0]) > maxAuthorization {
		return signed{}, incomplete("Authorization header must occur once and have 4096 bytes at most.")
	}
	p, err := parseParameters(header[0])
	if err != nil {
		return signed{}, err
	}
	date, iso := dateHeader(r.Header)
	if message := p.missing() + missingDate(date); message != "" {
		return signed{}, incomplete(message)
	}
	if strings.Count(p.signedHeaders, ";") >= maxSignedHeaders {
		return signed{}, incomplete("Authorization header must have 64 SignedHeaders at most.")
	}
	s := signed{headers: p.signedHeaders, signature: p.signature}
	if err := s.setCredential(p.credential); err != nil {
		return signed{}, err
	}
	if err := s.setDate(date, iso); err != nil {
		return signed{}, err
	}
	return s, nil
}

// parameters are those of the Authorization header.
type parameters struct {
	credential    string
	signature     string
	signedHeaders string
}

// parseParameters reads "AWS4-HMAC-SHA256 name=value, ..." with the parameters in any order, each once.
func parseParameters(header string) (parameters, error) {
	var p parameters
	scheme, rest, _ := strings.Cut(header, " ")
	if scheme != algorithm {
		return p, incomplete("Unsupported AWS 'algorithm' in Authorization header, it must be 'AWS4-HMAC-SHA256'.")
	}
	for rest != "" {
		var field string
		field, rest, _ = strings.Cut(rest, ",")
		name, value, ok := strings.Cut(textproto.TrimString(field), "=")
		if !ok {
			return p, incomplete("Invalid key=value pair (missing equal-sign) in Authorization header.")
		}
		target := p.named(name)
		if target == nil || *target != "" || value == "" {
			return p, incomplete("Unknown, repeated or empty parameter in Authorization header.")
		}
		*target = value
	}
	return p, nil
}

func (p *parameters) named(name string) *string {
	switch name {
	case "Credential":
		return &p.credential
	case "Signature":
		return &p.signature
	case "SignedHeaders":
		return &p.signedHeaders
	}
	return nil
}

// missing lists the parameters that are not there, in AWS's words.
func (p *parameters) missing() string {
	message := ""
	for _, name := range [...]string{"Credential", "Signature", "SignedHeaders"} {
		if *p.named(name) == "" {
			message += "Authorization header requires '" + name + "' parameter. "
		}
	}
	return message
}

func missingDate(date string) string {
	if date != "" {
		return ""
	}
	return "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
}

// setCredential splits the credential in its five elements.
func (s *signed) setCredential(credential string) error {
	if n := strings.Count(credential, "/") + 1; n != 5 {
		// AWS shows the credential here. We do not: a secret access key has slashes, an access key ID has none, so this
		// is where a client that swapped the two ends up.
		return incomplete(fmt.Sprintf("Credential must have exactly 5 slash-delimited elements, "+
			"e.g. keyid/date/region/service/term, got %d.", n))
	}
	s.accessKeyID, s.scope, _ = strings.Cut(credential, "/")
	day, rest, _ := strings.Cut(s.scope, "/")
	region, rest, _ := strings.Cut(rest, "/")
	service, term, _ := strings.Cut(rest, "/")
	s.day, s.region, s.service, s.term = day, region, service, term
	return nil
}

// checkScope checks the credential scope against the date of the request and what is served here. As AWS does, it tells
// of all faults of the latter at once.
func checkScope(s *signed, config *Config, services []string) error {
	message := ""
	if !config.Regions(s.service, s.region) {
		message += "Credential should be scoped to a valid region. "
	}
	if !slices.Contains(services, s.service) {
		message += "Credential should be scoped to correct service: '" + strings.Join(services, "' or '") + "'. "
	}
	if s.term != terminator {
		message += "Credential should be scoped with a valid terminator: '" + terminator + "', not '" + s.term + "'. "
	}
	if message != "" {
		return invalid("%s", message)
	}
	if day := s.stamp[:len("YYYYMMDD")]; s.day != day {
		return invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "+
			"'%s' != '%s', from '%s'.", s.day, day, s.stamp)
	}
	return nil
}

// checkSignedHeaders checks that the host and all x-amz-* headers are signed. No SDK leaves one of these out: the
// X-Amzn-Trace-Id that proxies add and no signature covers does not begin so. The date needs no check of its own when it
// comes from the Date header, because the string to sign holds it.
func checkSignedHeaders(header http.Header, signedHeaders string) error {
	if !isSigned(signedHeaders, "host") {
		return invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	// This ends at the first header that is not signed, so its work is bounded by maxSignedHeaders.
	for key := range header {
		if isAmz(key) && !isSigned(signedHeaders, key) {
			return invalid("'%s' must be a 'SignedHeader' in the AWS Authorization.", key)
		}
	}
	return nil
}

func isAmz(key string) bool {
	const prefix = "X-Amz-"
	return len(key) >= len(prefix) && strings.EqualFold(key[:len(prefix)], prefix)
}

func isSigned(signedHeaders, key string) bool {
	for name := range strings.SplitSeq(signedHeaders, ";") {
		if strings.EqualFold(name, key) {
			return true
		}
	}
	return false
}

// validAccessKeyID reports whether s has the form of an access key ID, which AWS gives as \w+; only such a string is
// looked up.
func validAccessKeyID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxAccessKeyID
}
