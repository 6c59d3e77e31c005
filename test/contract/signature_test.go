package contract

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// signing says how a request is signed.
type signing struct {
	credentials     aws.Credentials
	service, region string
	at              time.Time
}

// signed makes a request of an operation, signed otherwise than it should be if edit says so.
func signed(t testing.TB, s *kmstest.Server, target, body string, edit func(*signing)) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Endpoint+"/", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", mediaType)
	r.Header.Set("X-Amz-Target", target)
	how := signing{s.Credentials(), "kms", kmstest.Region, time.Now()}
	edit(&how)
	digest := sha256.Sum256([]byte(body))
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), how.credentials, r, hex.EncodeToString(digest[:]), how.service, how.region, how.at))
	return r
}

// authorization makes an edit of the Authorization header.
func authorization(old, replacement string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, replacement, 1))
	}
}

const (
	textMismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. " +
		"Consult the service documentation for details."
	textBadToken   = "The security token included in the request is invalid."
	textNoRegion   = "Credential should be scoped to a valid region. "
	textNoService  = "Credential should be scoped to correct service: 'kms'. "
	textNoEqual    = "Invalid key=value pair (missing equal-sign) in Authorization header."
	textParameter  = "Unknown, repeated or empty parameter in Authorization header."
	textHostSigned = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
	textScheme     = "Unsupported AWS 'algorithm' in Authorization header, it must be 'AWS4-HMAC-SHA256'."
	textDate       = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
)

// forgedRequest is a way in which a request does not prove who sent it: signed wrongly, or changed afterwards.
type forgedRequest struct {
	name          string
	sign          func(*signing)
	after         func(*http.Request)
	code, message string
}

const (
	missingToken    = "MissingAuthenticationTokenException"
	incomplete      = "IncompleteSignatureException"
	invalidSign     = "InvalidSignatureException"
	unrecognized    = "UnrecognizedClientException"
	accessKeyForm   = "AKIA0123456789ABCDEF"
	signatureLength = 64
)

var forgedRequests = []forgedRequest{
	{name: "no signature", after: func(r *http.Request) { r.Header.Del("Authorization") }, code: missingToken, message: "Missing Authentication Token"},
	{name: "an empty signature", after: set("Authorization", ""), code: missingToken, message: "Missing Authentication Token"},
	{name: "a bearer", after: set("Authorization", "Bearer x"), code: incomplete, message: textScheme},
	{name: "basic", after: set("Authorization", "Basic eDp5"), code: incomplete, message: textScheme},
	{name: "an asymmetric signature", after: authorization("HMAC", "ECDSA-P256"), code: incomplete, message: textScheme},
	{name: "an older signature", after: set("Authorization", "AWS AKIAEXAMPLE:c2ln"), code: incomplete, message: textScheme},
	{name: "nothing but the scheme", after: set("Authorization", "AWS4-HMAC-SHA256"), code: incomplete, message: "Authorization header requires 'Credential' parameter. " +
		"Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. "},
	{name: "no parameters", after: set("Authorization", "AWS4-HMAC-SHA256 x"), code: incomplete, message: textNoEqual},
	{name: "a parameter too many", after: authorization("Credential=", "Colour=red, Credential="), code: incomplete, message: textParameter},
	{name: "a parameter twice", after: authorization("Credential=", "Signature=x, Credential="), code: incomplete, message: textParameter},
	{name: "no credential", after: authorization("Credential=", "Signature="), code: incomplete, message: textParameter},
	{name: "a short credential", after: authorization("/kms/aws4_request", ""), code: incomplete, message: "Credential must have exactly 5 slash-delimited elements, " +
		"e.g. keyid/date/region/service/term, got 3."},
	{name: "a long header", after: authorization("Credential=", "Credential="+strings.Repeat("x", 4096)), code: incomplete, message: "Authorization header must occur once and have 4096 bytes at most."},
	{name: "two headers", after: func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, code: incomplete,
		message: "Authorization header must occur once and have 4096 bytes at most."},
	{name: "no date", after: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, code: incomplete, message: textDate},
	{name: "a bad date", after: set("X-Amz-Date", "today"), code: incomplete, message: "Date must be in ISO-8601 'basic format'. Got 'today'. " +
		"See http://en.wikipedia.org/wiki/ISO_8601"},

	{name: "another service", sign: func(how *signing) { how.service = "s3" }, code: invalidSign, message: textNoService},
	{name: "a service in capitals", sign: func(how *signing) { how.service = "KMS" }, code: invalidSign, message: textNoService},
	{name: "a Region that is not served", sign: func(how *signing) { how.region = "eu-west-1" }, code: invalidSign, message: textNoRegion},
	{name: "no Region", sign: func(how *signing) { how.region = "" }, code: invalidSign, message: textNoRegion},
	{name: "another service and Region", sign: func(how *signing) { how.service, how.region = "s3", "us-west-1" }, code: invalidSign, message: textNoRegion + textNoService},
	{name: "another end of the scope", after: authorization("/aws4_request", "/aws5_request"), code: invalidSign,
		message: "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'. "},
	{name: "the host not signed", after: authorization("host;", ""), code: invalidSign, message: textHostSigned},
	{name: "the target not signed", after: authorization(";x-amz-target", ""), code: invalidSign, message: "'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization."},
	{name: "the date not signed", after: authorization(";x-amz-date", ""), code: invalidSign, message: "'X-Amz-Date' must be a 'SignedHeader' in the AWS Authorization."},
	{name: "a header added", after: set("X-Amz-Extra", "x"), code: invalidSign, message: "'X-Amz-Extra' must be a 'SignedHeader' in the AWS Authorization."},

	{name: "a wrong secret", sign: func(how *signing) { how.credentials.SecretAccessKey += "x" }, code: invalidSign, message: textMismatch},
	{name: "another's secret", sign: func(how *signing) { how.credentials.SecretAccessKey = strings.Repeat("A", 40) }, code: invalidSign, message: textMismatch},
	{name: "another body", after: func(r *http.Request) { replaceBody(r, `{"x":1}`) }, code: invalidSign, message: textMismatch},
	{name: "no body", after: func(r *http.Request) { replaceBody(r, "") }, code: invalidSign, message: textMismatch},
	{name: "another target", after: set("X-Amz-Target", "TrentService.DisableKey"), code: invalidSign, message: textMismatch},
	{name: "another content type", after: set("Content-Type", "application/json"), code: invalidSign, message: textMismatch},
	{name: "another host", after: func(r *http.Request) { r.Host = "kms.us-east-1.amazonaws.com" }, code: invalidSign, message: textMismatch},
	{name: "a query added", after: func(r *http.Request) { r.URL.RawQuery = "x=1" }, code: invalidSign, message: textMismatch},
	{name: "another second", after: func(r *http.Request) {
		at, _ := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		r.Header.Set("X-Amz-Date", at.Add(-time.Second).Format("20060102T150405Z"))
	}, sign: noon, code: invalidSign, message: textMismatch},
	{name: "another signature", after: func(r *http.Request) {
		header := r.Header.Get("Authorization")
		r.Header.Set("Authorization", header[:len(header)-signatureLength]+strings.Repeat("0", signatureLength))
	}, code: invalidSign, message: textMismatch},
	{name: "a short signature", after: func(r *http.Request) {
		header := r.Header.Get("Authorization")
		r.Header.Set("Authorization", header[:len(header)-1])
	}, code: invalidSign, message: textMismatch},
	{name: "another hash of the body", after: func(r *http.Request) {
		r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		authorization("x-amz-date", "x-amz-content-sha256;x-amz-date")(r)
	}, code: invalidSign, message: textMismatch},

	{name: "an unknown access key", sign: func(how *signing) { how.credentials.AccessKeyID = accessKeyForm }, code: unrecognized, message: textBadToken},
	{name: "the access key in lower case", sign: func(how *signing) { how.credentials.AccessKeyID = strings.ToLower(how.credentials.AccessKeyID) },
		code: unrecognized, message: textBadToken},
	{name: "an access key of other characters", sign: func(how *signing) { how.credentials.AccessKeyID = "AKIA-." }, code: unrecognized, message: textBadToken},
	{name: "a session token", sign: func(how *signing) { how.credentials.SessionToken = "token" }, code: unrecognized, message: textBadToken},
	{name: "a session token added", after: set("X-Amz-Security-Token", ""), code: invalidSign, message: "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization."},
}

// noon keeps a request that is changed by a second within the same day.
func noon(how *signing) {
	if at := how.at.UTC(); at.Hour() == 0 && at.Minute() == 0 {
		how.at = at.Add(time.Minute)
	}
}

func replaceBody(r *http.Request, body string) {
	r.Body, r.GetBody, r.ContentLength = http.NoBody, nil, int64(len(body))
	if body != "" {
		r.Body = io.NopCloser(strings.NewReader(body))
	}
}

// send signs, changes and sends the request.
func (f forgedRequest) send(t testing.TB, s *kmstest.Server, target, body string) kmstest.Answer {
	t.Helper()
	edit, after := f.sign, f.after
	if edit == nil {
		edit = func(*signing) {}
	}
	r := signed(t, s, target, body, edit)
	if after != nil {
		after(r)
	}
	return s.Send(t, r)
}

// TestSignatureRefusals checks the answers to requests that prove nothing. They are the same whatever the request was
// for, so that nobody learns anything about operations, keys or aliases; and neither the answer nor the log holds what was
// sent.
func TestSignatureRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		var answers []kmstest.Answer
		for _, f := range forgedRequests {
			t.Run(f.name, func(t *testing.T) {
				for _, request := range []struct{ target, body string }{
					{"TrentService.DescribeKey", object(t, "KeyId", id)},
					{"TrentService.DescribeKey", object(t, "KeyId", absentKey)},
					{"TrentService.EnableKey", "{}"},
					{"TrentService.Sign", "{"},
					{"TrentService.NoSuchOperation", "\xff"},
				} {
					answer := f.send(t, s, request.target, request.body)
					answer.RequireRefusal(t, f.code, f.message)
					require.Equal(t, mediaType, answer.Header.Get("Content-Type"))
					answers = append(answers, answer)
				}
			})
		}
		enabled, _ := keyState(t, s, id)
		require.True(t, enabled)
		requireNoSecrets(t, s, logOf(t, s, answers))
	})
}

// requireNoSecrets checks that a log holds no secret access key and no signature.
func requireNoSecrets(t *testing.T, s *kmstest.Server, log string) {
	t.Helper()
	require.Len(t, s.Secret, 40)
	require.NotContains(t, log, s.Secret)
	require.NotContains(t, log, url.QueryEscape(s.Secret))
	require.NotContains(t, log, "AWS4-HMAC-SHA256")
	require.NotContains(t, log, "Signature=")
	require.NotContains(t, log, "Bearer")
}

// TestSwappedCredentials sends the secret where the access key ID belongs, as mixed-up settings do: it comes back in no
// answer and is in no log.
func TestSwappedCredentials(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		var answers []kmstest.Answer
		for _, secret := range []string{s.Secret, strings.ReplaceAll(s.Secret, "/", "+"), strings.ReplaceAll(strings.ReplaceAll(s.Secret, "/", ""), "+", "")} {
			swapped := func(how *signing) {
				how.credentials = aws.Credentials{AccessKeyID: secret, SecretAccessKey: s.AccessKeyID}
			}
			answer := forgedRequest{sign: swapped}.send(t, s, "TrentService.ListKeys", "{}")
			require.Equal(t, http.StatusBadRequest, answer.Status)
			require.Contains(t, []any{unrecognized, incomplete}, answer.JSON(t)["__type"])
			require.NotContains(t, answer.Body, secret)
			answers = append(answers, answer)
		}
		log := logOf(t, s, answers)
		requireNoSecrets(t, s, log)
		require.NotContains(t, log, s.Secret[:20])
	})
}

// skewed are the texts for a date too far in the past and in the future: the date of the request, the bound, and the time
// of the server from which the bound follows.
var skewed = map[string]*regexp.Regexp{
	"past":   regexp.MustCompile(`^Signature expired: (\w+) is now earlier than (\w+) \((\w+) - 5 min\.\)$`),
	"future": regexp.MustCompile(`^Signature not yet current: (\w+) is still later than (\w+) \((\w+) \+ 5 min\.\)$`),
}

// TestSignatureDates signs with a clock that is wrong. The bound is five minutes; requests come no nearer to it than a
// minute, so that a slow machine does not matter.
func TestSignatureDates(t *testing.T) {
	const form = "20060102T150405Z"
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, test := range []struct {
			off  time.Duration
			form string
		}{
			{-6 * time.Minute, "past"}, {-time.Hour, "past"}, {-24 * time.Hour, "past"}, {-30 * 365 * 24 * time.Hour, "past"},
			{6*time.Minute + 30*time.Second, "future"}, {time.Hour, "future"}, {24 * time.Hour, "future"}, {30 * 365 * 24 * time.Hour, "future"},
		} {
			var at time.Time
			before := time.Now().UTC().Truncate(time.Second)
			answer := forgedRequest{sign: func(how *signing) { how.at = how.at.Add(test.off); at = how.at.UTC() }}.send(t, s, "TrentService.ListKeys", "{}")
			require.Equal(t, http.StatusBadRequest, answer.Status)
			require.Equal(t, invalidSign, answer.JSON(t)["__type"])
			parts := skewed[test.form].FindStringSubmatch(answer.JSON(t)["message"].(string))
			require.NotNil(t, parts, answer.Body)
			require.Equal(t, at.Format(form), parts[1])
			bound, err := time.Parse(form, parts[2])
			require.NoError(t, err)
			now, err := time.Parse(form, parts[3])
			require.NoError(t, err)
			require.Equal(t, 5*time.Minute, bound.Sub(now).Abs())
			require.False(t, now.Before(before))
			require.False(t, now.After(time.Now()))
		}
		for _, off := range []time.Duration{-4 * time.Minute, 4 * time.Minute} {
			answer := forgedRequest{sign: func(how *signing) { how.at = how.at.Add(off) }}.send(t, s, "TrentService.ListKeys", "{}")
			require.Equal(t, http.StatusOK, answer.Status, answer.Body)
		}
	})
}

// TestSignatureOfAnotherDay has a credential scope whose day is not that of the date.
func TestSignatureOfAnotherDay(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		r := s.Request(t, "ListKeys", "{}")
		stamp := r.Header.Get("X-Amz-Date")
		authorization("/"+stamp[:8]+"/", "/20200101/")(r)
		s.Send(t, r).RequireRefusal(t, invalidSign,
			"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20200101' != '"+stamp[:8]+"', from '"+stamp+"'.")
	})
}

// TestPresigned sends a presigned URL, which KMS clients do not make: it carries no signature that counts.
func TestPresigned(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Endpoint+"/", strings.NewReader("{}"))
		require.NoError(t, err)
		r.Header.Set("Content-Type", mediaType)
		r.Header.Set("X-Amz-Target", "TrentService.ListKeys")
		digest := sha256.Sum256([]byte("{}"))
		link, header, err := v4.NewSigner().PresignHTTP(t.Context(), s.Credentials(), r, hex.EncodeToString(digest[:]), "kms", kmstest.Region, time.Now())
		require.NoError(t, err)
		require.Contains(t, link, "X-Amz-Signature=")
		r, err = http.NewRequestWithContext(t.Context(), http.MethodPost, link, strings.NewReader("{}"))
		require.NoError(t, err)
		r.Header = header
		s.Send(t, r).RequireRefusal(t, missingToken, "Missing Authentication Token")
	})
}

// TestSignatureSDK has AWS's client sign with wrong credentials.
func TestSignatureSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		list := func(edit func(*aws.Credentials), region string) error {
			credentials := s.Credentials()
			edit(&credentials)
			_, err := s.Client().ListKeys(t.Context(), &kms.ListKeysInput{}, func(o *kms.Options) {
				o.Region = region
				o.Credentials = aws.NewCredentialsCache(fixed(credentials))
			})
			return err
		}
		same := func(*aws.Credentials) {}
		require.NoError(t, list(same, kmstest.Region))
		kmstest.RequireError(t, list(same, "eu-central-1"), invalidSign, textNoRegion)
		kmstest.RequireError(t, list(func(c *aws.Credentials) { c.SecretAccessKey = "x" }, kmstest.Region), invalidSign, textMismatch)
		kmstest.RequireError(t, list(func(c *aws.Credentials) { c.AccessKeyID = "x" }, kmstest.Region), unrecognized, textBadToken)
		kmstest.RequireError(t, list(func(c *aws.Credentials) { c.SessionToken = "x" }, kmstest.Region), unrecognized, textBadToken)
	})
}

func fixed(c aws.Credentials) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c, nil })
}
