package auth

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzSDKSigner makes requests of all kinds, has the SDK sign them, and expects that each is accepted as it arrives.
func FuzzSDKSigner(f *testing.F) {
	f.Add("POST", "/", "", "X-Amz-Meta", "a", "", []byte(testBody))
	f.Add("GET", "/a b/ü/../%2F//", "b=2&a=1&a=+%20%zz;&&=", "content-type", "  a   b\t c ", "\t", []byte(nil))
	f.Add("PUT", "/?#[]@!$&'()*+,;=:", "ü=☃&%e2%98%83", "a.b_c", "\xff\x80", "a,b", []byte{0, 1})
	f.Add("DELETE", "\x00\xff", "a-b=1&a=2&a%2Fb=3", "user-agent", "\"a   b\"", " ", []byte(" "))
	v := newVerifier(f, testConfig())
	f.Fuzz(func(t *testing.T, method, path, query, name, value1, value2 string, body []byte) {
		r, err := http.NewRequest(fuzzMethod(method), "http://kms.example.com:8600", bytes.NewReader(body))
		require.NoError(t, err)
		r.URL.Path, r.URL.RawQuery = "/"+path, query
		for _, value := range []string{fuzzValue(value1), fuzzValue(value2)} {
			if strings.TrimSpace(value) != textproto.TrimString(value) {
				return // the SDK takes Unicode's spaces from the ends, which net/http does not
			}
			r.Header.Add("X-Amz-"+fuzzName(name), value)
		}
		signing{}.sign(t, r, body)
		if len(r.URL.RawQuery) > maxQuery || len(name) > 100 {
			return // over our limits
		}
		received, arrived := transmit(t, r)
		identity, err := v.Verify(t.Context(), received, arrived, testServices)
		require.NoError(t, err, "%q %q", received.RequestURI, received.Header)
		require.Same(t, testPrincipal, identity.Caller)
	})
}

func fuzzMethod(s string) string {
	return []string{"POST", "GET", "PUT", "DELETE", "PATCH"}[len(s)%5]
}

// fuzzName makes the rest of a header name.
func fuzzName(s string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!"
	name := []byte("Fuzz" + s)
	for i, c := range name[4:] {
		name[i+4] = letters[int(c)%len(letters)]
	}
	return string(name)
}

// fuzzValue takes the control characters out, which net/http refuses to send.
func fuzzValue(s string) string {
	value := []byte(s)
	for i, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			value[i] = ' '
		}
	}
	return string(value)
}

// FuzzAuthorization feeds headers that no one signed with the secret: none is accepted, nothing panics, and each gets
// one of AWS's errors.
func FuzzAuthorization(f *testing.F) {
	r := newRequest(f, testBody)
	signing{secret: "other"}.sign(f, r, []byte(testBody))
	forged := r.Header.Get("Authorization")
	for _, s := range []string{
		forged, "", "Bearer abc", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 ,", forged + ",", forged + ", Signature=a",
		strings.ReplaceAll(forged, ", ", ","), strings.ReplaceAll(forged, ";", ""), strings.ReplaceAll(forged, "/", "//"),
		strings.Replace(forged, "host", "host;host", 1), strings.Replace(forged, "=amz", "=;amz", 1), forged[:len(forged)-64],
	} {
		f.Add(s, "20260101T000500Z", "", "", "/")
	}
	f.Add(forged, "", "Thu, 01 Jan 2026 00:05:00 GMT", "a=1", "/a")
	v := newVerifier(f, testConfig())
	f.Fuzz(func(t *testing.T, authorization, amzDate, date, query, path string) {
		header := r.Header.Clone()
		header["Authorization"] = []string{authorization}
		header["X-Amz-Date"] = []string{amzDate}
		if amzDate == "" {
			header.Del("X-Amz-Date")
		}
		header["Date"] = []string{date}
		received := &http.Request{
			Method: http.MethodPost, URL: &url.URL{Path: path, RawQuery: query}, Host: r.Host, Header: header,
			ContentLength: int64(len(testBody)),
		}
		identity, err := v.Verify(t.Context(), received, []byte(testBody), testServices)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Zero(t, identity)
		require.Contains(t, []string{
			missingAuthenticationTokenException, incompleteSignatureException, invalidSignatureException,
			unrecognizedClientException,
		}, e.Type)
		require.NotEmpty(t, e.Message)
	})
}
