package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	mismatchText = "The request signature we calculated does not match the signature you provided. Check your AWS " +
		"Secret Access Key and signing method. Consult the service documentation for details."
	unrecognizedText = "The security token included in the request is invalid."
)

func TestNewRefusesIncompleteConfig(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"regions":        func(c *Config) { c.Regions = nil },
		"credential":     func(c *Config) { c.Credential = nil },
		"secret":         func(c *Config) { c.Secret = nil },
		"skew":           func(c *Config) { c.Skew = -1 },
		"secret timeout": func(c *Config) { c.SecretTimeout = -1 },
		"cache size":     func(c *Config) { c.CacheSize = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig()
			spoil(&config)
			_, err := New(config)
			require.Error(t, err)
		})
	}
}

func TestVerifyUsesTheRealTimeByDefault(t *testing.T) {
	config := testConfig()
	config.Clock = nil
	r := newRequest(t, testBody)
	signing{time: time.Now()}.sign(t, r, []byte(testBody))
	_, err := newVerifier(t, config).Verify(t.Context(), r, []byte(testBody), testServices)
	require.NoError(t, err)
}

// TestVerifyAccepts has what differs between clients and is right in all of them.
func TestVerifyAccepts(t *testing.T) {
	for name, tt := range map[string]struct {
		signing signing
		before  func(*http.Request) // before it is signed
		after   func(*http.Request)
		body    string
	}{
		"plain":           {body: testBody},
		"no body":         {},
		"other Region":    {body: testBody, signing: signing{region: "eu-west-1"}},
		"oldest":          {body: testBody, signing: signing{time: testNow.Add(-5 * time.Minute)}},
		"newest":          {body: testBody, signing: signing{time: testNow.Add(5 * time.Minute)}},
		"path and query":  {body: testBody, before: func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "/a b/ü", "b=2&a=1" }},
		"duplicates":      {body: testBody, before: func(r *http.Request) { r.Header["X-Amz-Meta-A"] = []string{"2", " 1  1 "} }},
		"unsigned header": {body: testBody, after: func(r *http.Request) { r.Header.Set("X-Amzn-Trace-Id", "Root=1") }},
		"unsigned content type, as in PHP": {
			body:   testBody,
			before: func(r *http.Request) { r.Header.Del("Content-Type") },
			after:  func(r *http.Request) { r.Header.Set("Content-Type", "application/x-amz-json-1.1") },
		},
		"hash of the body, as in JavaScript": {
			body: testBody,
			before: func(r *http.Request) {
				r.Header.Set("X-Amz-Content-Sha256", hashOf(testBody))
			},
		},
		"parameters in another order": {body: testBody, after: func(r *http.Request) {
			p, err := parseParameters(r.Header.Get("Authorization"))
			require.NoError(t, err)
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Signature="+p.signature+",SignedHeaders="+
				p.signedHeaders+" ,\t Credential="+p.credential)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, tt.body)
			if tt.before != nil {
				tt.before(r)
			}
			tt.signing.sign(t, r, []byte(tt.body))
			if tt.after != nil {
				tt.after(r)
			}
			received, body := transmit(t, r)
			identity, err := newVerifier(t, testConfig()).Verify(t.Context(), received, body, testServices)
			require.NoError(t, err)
			require.Same(t, testPrincipal, identity.Caller)
			require.Equal(t, or(tt.signing.region, testRegion), identity.Region)
		})
	}
}

// credentialOf replaces the credential in the Authorization header.
func credentialOf(credential string) func(*http.Request) {
	return func(r *http.Request) {
		header := r.Header.Get("Authorization")
		_, rest, _ := strings.Cut(header, ", ")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+credential+", "+rest)
	}
}

func authorizationOf(value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", value) }
}

func headerOf(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = values }
}

// TestVerifyRefuses has the error of AWS for each way to be wrong.
func TestVerifyRefuses(t *testing.T) {
	const (
		needCredential    = "Authorization header requires 'Credential' parameter. "
		needSignature     = "Authorization header requires 'Signature' parameter. "
		needSignedHeaders = "Authorization header requires 'SignedHeaders' parameter. "
		needDate          = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
		fiveElements      = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got "
		notBasic          = "Date must be in ISO-8601 'basic format'. Got '"
		seeISO            = "'. See http://en.wikipedia.org/wiki/ISO_8601"
		notOnce           = "Authorization header must occur once and have 4096 bytes at most."
		badParameter      = "Unknown, repeated or empty parameter in Authorization header."
		unsupported       = "Unsupported AWS 'algorithm' in Authorization header, it must be 'AWS4-HMAC-SHA256'."
	)
	for name, tt := range map[string]struct {
		signing signing
		after   func(*http.Request)
		kind    string
		message string
	}{
		"no header":    {after: func(r *http.Request) { r.Header.Del("Authorization") }, kind: missingAuthenticationTokenException, message: "Missing Authentication Token"},
		"empty header": {after: authorizationOf(""), kind: missingAuthenticationTokenException, message: "Missing Authentication Token"},

		"two headers":         {after: headerOf("Authorization", "a", "b"), kind: incompleteSignatureException, message: notOnce},
		"long header":         {after: authorizationOf(strings.Repeat("a", 4097)), kind: incompleteSignatureException, message: notOnce},
		"bearer":              {after: authorizationOf("Bearer abc"), kind: incompleteSignatureException, message: unsupported},
		"other algorithm":     {after: authorizationOf("AWS4-HMAC-SHA512 Credential=a"), kind: incompleteSignatureException, message: unsupported},
		"lower-case":          {after: authorizationOf("aws4-hmac-sha256 Credential=a"), kind: incompleteSignatureException, message: unsupported},
		"algorithm only":      {after: authorizationOf("AWS4-HMAC-SHA256"), kind: incompleteSignatureException, message: needCredential + needSignature + needSignedHeaders},
		"signature only":      {after: authorizationOf("AWS4-HMAC-SHA256 Signature=a"), kind: incompleteSignatureException, message: needCredential + needSignedHeaders},
		"credential only":     {after: authorizationOf("AWS4-HMAC-SHA256 Credential=a"), kind: incompleteSignatureException, message: needSignature + needSignedHeaders},
		"signed headers only": {after: authorizationOf("AWS4-HMAC-SHA256 SignedHeaders=a"), kind: incompleteSignatureException, message: needCredential + needSignature},
		"no equal-sign":       {after: authorizationOf("AWS4-HMAC-SHA256 Credential"), kind: incompleteSignatureException, message: "Invalid key=value pair (missing equal-sign) in Authorization header."},
		"unknown parameter":   {after: authorizationOf("AWS4-HMAC-SHA256 Region=a"), kind: incompleteSignatureException, message: badParameter},
		"repeated parameter":  {after: authorizationOf("AWS4-HMAC-SHA256 Signature=a, Signature=a"), kind: incompleteSignatureException, message: badParameter},
		"empty parameter":     {after: authorizationOf("AWS4-HMAC-SHA256 Signature="), kind: incompleteSignatureException, message: badParameter},
		"too many signed headers": {
			after: authorizationOf("AWS4-HMAC-SHA256 Credential=a, Signature=b, SignedHeaders=host" + strings.Repeat(";h", 64)),
			kind:  incompleteSignatureException, message: "Authorization header must have 64 SignedHeaders at most.",
		},

		"no date":              {after: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, kind: incompleteSignatureException, message: needDate},
		"no date and more":     {after: func(r *http.Request) { r.Header = http.Header{"Authorization": {"AWS4-HMAC-SHA256 Signature=a"}} }, kind: incompleteSignatureException, message: needCredential + needSignedHeaders + needDate},
		"extended date":        {after: headerOf("X-Amz-Date", "2026-01-01T00:05:00Z"), kind: incompleteSignatureException, message: notBasic + "2026-01-01T00:05:00Z" + seeISO},
		"fraction of a second": {after: headerOf("X-Amz-Date", "20260101T000500.0Z"), kind: incompleteSignatureException, message: notBasic + "20260101T000500.0Z" + seeISO},
		"RFC 1123 in X-Amz":    {after: headerOf("X-Amz-Date", "Thu, 01 Jan 2026 00:05:00 GMT"), kind: incompleteSignatureException, message: notBasic + "Thu, 01 Jan 2026 00:05:00 GMT" + seeISO},
		"two dates":            {after: headerOf("X-Amz-Date", "20260101T000500Z", "20260101T000500Z"), kind: incompleteSignatureException, message: notBasic + "20260101T000500Z,20260101T000500Z" + seeISO},
		"long date":            {after: headerOf("X-Amz-Date", strings.Repeat("ü", 33)+"!"), kind: incompleteSignatureException, message: notBasic + strings.Repeat("ü", 32) + seeISO},

		"4 elements": {after: credentialOf("a/b/c/d"), kind: incompleteSignatureException, message: fiveElements + "4."},
		"6 elements": {after: credentialOf("wJalrXUtnFEMI/K7MDENG/b/c/d/e"), kind: incompleteSignatureException, message: fiveElements + "6."},

		"Region not served": {signing: signing{region: "mars-1"}, kind: invalidSignatureException, message: "Credential should be scoped to a valid region. "},
		"other service":     {signing: signing{service: "sts"}, kind: invalidSignatureException, message: "Credential should be scoped to correct service: 'kms'. "},
		"other terminator": {
			after: credentialOf(testKeyID + "/20260101/us-east-1/kms/aws5_request"),
			kind:  invalidSignatureException, message: "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'. ",
		},
		"all wrong in scope": {
			after: credentialOf(testKeyID + "/20260101///"),
			kind:  invalidSignatureException,
			message: "Credential should be scoped to a valid region. Credential should be scoped to correct service: 'kms'. " +
				"Credential should be scoped with a valid terminator: 'aws4_request', not ''. ",
		},
		"other day in scope": {
			after: credentialOf(testKeyID + "/20260102/us-east-1/kms/aws4_request"),
			kind:  invalidSignatureException,
			message: "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: " +
				"'20260102' != '20260101', from '20260101T000500Z'.",
		},

		"expired": {
			signing: signing{time: testNow.Add(-5*time.Minute - time.Second)}, kind: invalidSignatureException,
			message: "Signature expired: 20251231T235959Z is now earlier than 20260101T000000Z (20260101T000500Z - 5 min.)",
		},
		"not yet current": {
			signing: signing{time: testNow.Add(5*time.Minute + time.Second)}, kind: invalidSignatureException,
			message: "Signature not yet current: 20260101T001001Z is still later than 20260101T001000Z (20260101T000500Z + 5 min.)",
		},

		"unsigned host": {
			after: authorizationOf("AWS4-HMAC-SHA256 Credential=" + testKeyID + "/20260101/us-east-1/kms/aws4_request, SignedHeaders=x-amz-date;x-amz-target, Signature=a"),
			kind:  invalidSignatureException, message: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
		},
		"unsigned target": {
			after: authorizationOf("AWS4-HMAC-SHA256 Credential=" + testKeyID + "/20260101/us-east-1/kms/aws4_request, SignedHeaders=host;x-amz-date, Signature=a"),
			kind:  invalidSignatureException, message: "'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization.",
		},
		"added x-amz header": {after: headerOf("x-AMZ-meta-a", "1"), kind: invalidSignatureException, message: "'x-AMZ-meta-a' must be a 'SignedHeader' in the AWS Authorization."},

		"unknown access key":      {signing: signing{keyID: "AKIDOTHER"}, kind: unrecognizedClientException, message: unrecognizedText},
		"empty access key":        {after: credentialOf("/20260101/us-east-1/kms/aws4_request"), kind: unrecognizedClientException, message: unrecognizedText},
		"session token":           {signing: signing{token: "abc"}, kind: unrecognizedClientException, message: unrecognizedText},
		"unsigned session token":  {after: headerOf("X-Amz-Security-Token", ""), kind: invalidSignatureException, message: "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization."},
		"other secret":            {signing: signing{secret: "other"}, kind: invalidSignatureException, message: mismatchText},
		"signed for other Region": {after: credentialOf(testKeyID + "/20260101/eu-west-1/kms/aws4_request"), kind: invalidSignatureException, message: mismatchText},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, testBody)
			tt.signing.sign(t, r, []byte(testBody))
			if tt.after != nil {
				tt.after(r)
			}
			_, err := newVerifier(t, testConfig()).Verify(t.Context(), r, []byte(testBody), testServices)
			requireError(t, err, tt.kind, tt.message)
		})
	}
}

func TestVerifyAcceptsDatesAtTheEdge(t *testing.T) {
	for name, tt := range map[string]struct{ now, signed time.Time }{
		"yesterday":           {testNow.Add(-4 * time.Minute), testNow.Add(-6 * time.Minute)},
		"tomorrow":            {testNow.Add(-6 * time.Minute), testNow.Add(-4 * time.Minute)},
		"part of a second":    {testNow.Add(time.Second - 1), testNow.Add(-5 * time.Minute)},
		"clock in other zone": {testNow.In(time.FixedZone("", 3600)), testNow},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig()
			config.Clock = func() time.Time { return tt.now }
			r := newRequest(t, testBody)
			signing{time: tt.signed}.sign(t, r, []byte(testBody))
			_, err := newVerifier(t, config).Verify(t.Context(), r, []byte(testBody), testServices)
			require.NoError(t, err)
		})
	}
}

func TestVerifyShowsTheSkewInMinutes(t *testing.T) {
	config := testConfig()
	config.Skew = 90 * time.Second
	r := newRequest(t, testBody)
	signing{time: testNow.Add(-2 * time.Minute)}.sign(t, r, []byte(testBody))
	_, err := newVerifier(t, config).Verify(t.Context(), r, []byte(testBody), testServices)
	requireError(t, err, invalidSignatureException,
		"Signature expired: 20260101T000300Z is now earlier than 20260101T000330Z (20260101T000500Z - 1.5 min.)")
}

// TestVerifyCallsNoLookupInVain keeps strangers from making work: only known access keys with a plausible request cost a
// look-up of the secret.
func TestVerifyCallsNoLookupInVain(t *testing.T) {
	config := testConfig()
	config.Secret = func(context.Context, string) ([]byte, error) {
		t.Error("the secret was asked for")
		return nil, errors.New("no")
	}
	v := newVerifier(t, config)
	for name, s := range map[string]signing{
		"unknown access key": {keyID: "AKIDOTHER"},
		"expired":            {time: testNow.Add(-time.Hour)},
		"other Region":       {region: "mars-1"},
		"session token":      {token: "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, testBody)
			s.sign(t, r, []byte(testBody))
			_, err := v.Verify(t.Context(), r, []byte(testBody), testServices)
			require.ErrorAs(t, err, new(*Error))
		})
	}
	long := newRequest(t, testBody)
	signing{keyID: strings.Repeat("A", maxAccessKeyID+1)}.sign(t, long, []byte(testBody))
	_, err := v.Verify(t.Context(), long, []byte(testBody), testServices)
	requireError(t, err, unrecognizedClientException, unrecognizedText)
}

func TestVerifyTellsInternalFailures(t *testing.T) {
	failure := errors.New("the store is gone")
	for name, tt := range map[string]struct {
		spoil func(*Config)
		is    error
	}{
		"credential": {is: failure, spoil: func(c *Config) {
			c.Credential = func(context.Context, string) (Credential, bool, error) { return Credential{}, true, failure }
		}},
		"no principal": {spoil: func(c *Config) {
			c.Credential = func(context.Context, string) (Credential, bool, error) { return Credential{}, true, nil }
		}},
		"secret": {is: failure, spoil: func(c *Config) {
			c.Secret = func(context.Context, string) ([]byte, error) { return nil, failure }
		}},
		"empty secret": {spoil: func(c *Config) {
			c.Secret = func(context.Context, string) ([]byte, error) { return nil, nil }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig()
			tt.spoil(&config)
			r := newRequest(t, testBody)
			signing{}.sign(t, r, []byte(testBody))
			identity, err := newVerifier(t, config).Verify(t.Context(), r, []byte(testBody), testServices)
			require.Error(t, err)
			require.NotErrorAs(t, err, new(*Error), "an internal failure is not the client's")
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			}
			require.Zero(t, identity)
		})
	}
}
