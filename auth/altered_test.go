package auth

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestVerifyRefusesAltered changes one thing after the request was signed.
func TestVerifyRefusesAltered(t *testing.T) {
	for name, alter := range map[string]func(r *http.Request, body []byte) []byte{
		"body": func(_ *http.Request, body []byte) []byte {
			return bytes.Replace(body, []byte("aGVs"), []byte("bGVs"), 1)
		},
		"longer body":  func(_ *http.Request, body []byte) []byte { return append(body, ' ') },
		"shorter body": func(_ *http.Request, body []byte) []byte { return body[:len(body)-1] },
		"no body":      func(*http.Request, []byte) []byte { return nil },
		"target": func(r *http.Request, body []byte) []byte {
			r.Header.Set("X-Amz-Target", "TrentService.Decrypt")
			return body
		},
		"no target":      func(r *http.Request, body []byte) []byte { r.Header.Del("X-Amz-Target"); return body },
		"second target":  func(r *http.Request, body []byte) []byte { r.Header.Add("X-Amz-Target", "a"); return body },
		"content type":   func(r *http.Request, body []byte) []byte { r.Header.Set("Content-Type", "text/plain"); return body },
		"content length": func(r *http.Request, body []byte) []byte { r.ContentLength++; return body },
		"date":           func(r *http.Request, body []byte) []byte { r.Header.Set("X-Amz-Date", "20260101T000501Z"); return body },
		"host":           func(r *http.Request, body []byte) []byte { r.Host = "kms.example.org:8600"; return body },
		"method":         func(r *http.Request, body []byte) []byte { r.Method = "PUT"; return body },
		"path":           func(r *http.Request, body []byte) []byte { r.URL.Path = "/p/b"; return body },
		"dots in path":   func(r *http.Request, body []byte) []byte { r.URL.Path = "/./p/a"; return body },
		"encoded path":   func(r *http.Request, body []byte) []byte { r.URL.RawPath = "/p%2fa"; return body },
		"opaque":         func(r *http.Request, body []byte) []byte { r.URL.Opaque = "p"; return body },
		"query":          func(r *http.Request, body []byte) []byte { r.URL.RawQuery = "a=1&b=3"; return body },
		"longer query":   func(r *http.Request, body []byte) []byte { r.URL.RawQuery += "&"; return body },
		"bad query name": func(r *http.Request, body []byte) []byte { r.URL.RawQuery += "&%zz"; return body },
		"bad query":      func(r *http.Request, body []byte) []byte { r.URL.RawQuery += "&a=%"; return body },
		"huge query": func(r *http.Request, body []byte) []byte {
			r.URL.RawQuery = strings.Repeat("&", maxQuery+1)
			return body
		},
		"no query": func(r *http.Request, body []byte) []byte { r.URL.RawQuery = ""; return body },
		"signed header": func(r *http.Request, body []byte) []byte {
			r.Header.Set("Amz-Sdk-Request", "attempt=2; max=3")
			return body
		},
		"empty header": func(r *http.Request, body []byte) []byte { r.Header["Amz-Sdk-Request"] = nil; return body },
		"signature": func(r *http.Request, body []byte) []byte {
			header := r.Header.Get("Authorization")
			at := strings.Index(header, "Signature=") + len("Signature=")
			r.Header.Set("Authorization", header[:at]+strings.ToUpper(header[at:]))
			return body
		},
		"short signature": func(r *http.Request, body []byte) []byte {
			header := r.Header.Get("Authorization")
			r.Header.Set("Authorization", header[:len(header)-1])
			return body
		},
		"long signature": func(r *http.Request, body []byte) []byte {
			r.Header.Set("Authorization", r.Header.Get("Authorization")+"0")
			return body
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, testBody)
			r.URL.Path, r.URL.RawQuery = "/p/a", "a=1&b=2"
			signing{}.sign(t, r, []byte(testBody))
			received, body := transmit(t, r)
			v := newVerifier(t, testConfig())
			_, err := v.Verify(t.Context(), received, body, testServices)
			require.NoError(t, err)
			body = alter(received, body)
			_, err = v.Verify(t.Context(), received, body, testServices)
			requireError(t, err, invalidSignatureException, mismatchText)
		})
	}
}

// meaning is all of a request that a server can act on.
func meaning(r *http.Request, body []byte) string {
	header := r.Header.Clone()
	header.Del("Authorization")
	return fmt.Sprintf("%q %q %q %q %q", r.Method, r.RequestURI, r.Host, header, body)
}

// TestVerifyRefusesEveryAlteredByte changes each byte of a request on its way. What is still accepted must mean the same.
func TestVerifyRefusesEveryAlteredByte(t *testing.T) {
	r := newRequest(t, testBody)
	r.URL.RawQuery = "a=1"
	r.Header.Set("User-Agent", "") // none: no signature covers it
	signing{}.sign(t, r, []byte(testBody))
	var wire bytes.Buffer
	require.NoError(t, r.Write(&wire))
	original, body, err := receive(wire.Bytes())
	require.NoError(t, err)
	v := newVerifier(t, testConfig())

	refused := 0
	for i := range wire.Len() {
		for _, bits := range []byte{0x01, 0x04, 0x20, 0x80} {
			altered := bytes.Clone(wire.Bytes())
			altered[i] ^= bits
			received, alteredBody, err := receive(altered)
			if err != nil {
				continue
			}
			if _, err = v.Verify(t.Context(), received, alteredBody, testServices); err != nil {
				require.ErrorAs(t, err, new(*Error))
				refused++
				continue
			}
			require.Equal(t, meaning(original, body), meaning(received, alteredBody), "%q", altered)
		}
	}
	require.Greater(t, refused, 2*wire.Len())
}

// TestVerifyRefusesEveryAlteredBitOfTheSignature leaves no bit of it unchecked.
func TestVerifyRefusesEveryAlteredBitOfTheSignature(t *testing.T) {
	r := newRequest(t, testBody)
	signing{}.sign(t, r, []byte(testBody))
	v := newVerifier(t, testConfig())
	valid := r.Header.Get("Authorization")
	start := strings.Index(valid, "Signature=") + len("Signature=")
	for i := range 4 * 64 {
		header := []byte(valid)
		at := start + i/4
		digit := strings.IndexByte("0123456789abcdef", header[at]) ^ 1<<(i%4)
		header[at] = "0123456789abcdef"[digit]
		r.Header.Set("Authorization", string(header))
		_, err := v.Verify(t.Context(), r, []byte(testBody), testServices)
		requireError(t, err, invalidSignatureException, mismatchText)
	}
}

// TestContentSha256MustBeTheHash signs the header rightly each time; only a true hash will do.
func TestContentSha256MustBeTheHash(t *testing.T) {
	for name, values := range map[string][]string{
		"unsigned payload": {"UNSIGNED-PAYLOAD"},
		"streaming":        {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
		"other hash":       {hashOf("other")},
		"empty":            {""},
		"capitals":         {strings.ToUpper(hashOf(testBody))},
		"twice":            {hashOf(testBody), hashOf(testBody)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, testBody)
			r.Header["X-Amz-Content-Sha256"] = values
			signing{}.sign(t, r, []byte(testBody))
			_, err := newVerifier(t, testConfig()).Verify(t.Context(), r, []byte(testBody), testServices)
			requireError(t, err, invalidSignatureException, mismatchText)
		})
	}
	// A client that signs UNSIGNED-PAYLOAD in place of the hash is refused as well.
	stamp, scope := "20260101T000500Z", "20260101/us-east-1/kms/aws4_request"
	canonical := "POST\n/\n\nhost:h\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:" + stamp +
		"\n\nhost;x-amz-content-sha256;x-amz-date\nUNSIGNED-PAYLOAD"
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/"}, Host: "h", Header: http.Header{
		"X-Amz-Content-Sha256": {"UNSIGNED-PAYLOAD"},
		"X-Amz-Date":           {stamp},
		"Authorization": {"AWS4-HMAC-SHA256 Credential=" + testKeyID + "/" + scope +
			", SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + signText(canonical, stamp, scope)},
	}}
	_, err := newVerifier(t, testConfig()).Verify(t.Context(), r, []byte(testBody), testServices)
	requireError(t, err, invalidSignatureException, mismatchText)
}

// TestCanonicalForm has requests that are signed by hand over a text written out here, some of them well, some not.
func TestCanonicalForm(t *testing.T) {
	const (
		stamp = "20260101T000500Z"
		scope = "20260101/us-east-1/kms/aws4_request"
	)
	for name, tt := range map[string]struct {
		request   string // without Authorization
		canonical string // without the hash of the body; its last line is SignedHeaders
		ok        bool
	}{
		"plain": {
			"POST / HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\nhost:h\nx-amz-date:" + stamp + "\n\nhost;x-amz-date", true,
		},
		"empty path": {
			"POST http://h HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\nhost:h\nx-amz-date:" + stamp + "\n\nhost;x-amz-date", true,
		},
		"path encoded twice": {
			"POST /a%20b/%2F~(é HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/a%2520b/%252F~%28%C3%A9\n\nhost:h\nx-amz-date:" + stamp + "\n\nhost;x-amz-date", true,
		},
		"path encoded once": {
			"POST /a%20b HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/a%20b\n\nhost:h\nx-amz-date:" + stamp + "\n\nhost;x-amz-date", false,
		},
		"query": {
			"POST /?b=2&a-b=1&a=%7e+x&a=%2b&c&b=1&=&é=/ HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n=&%C3%A9=%2F&a=%2B&a=~%20x&a-b=1&b=1&b=2&c=\nhost:h\nx-amz-date:" + stamp + "\n\nhost;x-amz-date", true,
		},
		"spaces": {
			"POST / HTTP/1.1\nHost: h\nA:   x \t  y   z\t \nX-Amz-Date: " + stamp,
			"POST\n/\n\na:x \t y z\nhost:h\nx-amz-date:" + stamp + "\n\na;host;x-amz-date", true,
		},
		"empty value": {
			"POST / HTTP/1.1\nHost: h\nA:\nX-Amz-Date: " + stamp,
			"POST\n/\n\na:\nhost:h\nx-amz-date:" + stamp + "\n\na;host;x-amz-date", true,
		},
		"no length": {
			"POST / HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\ncontent-length:0\nhost:h\nx-amz-date:" + stamp + "\n\ncontent-length;host;x-amz-date", true,
		},
		"Date in ISO 8601": {
			"POST / HTTP/1.1\nHost: h\nDate: " + stamp, "POST\n/\n\nhost:h\n\nhost", true,
		},
		"Date in RFC 1123": {
			"POST / HTTP/1.1\nHost: h\nDate: Thu, 01 Jan 2026 00:05:00 GMT", "POST\n/\n\nhost:h\n\nhost", true,
		},
		"X-Amz-Date before Date": {
			"POST / HTTP/1.1\nHost: h\nDate: Thu, 01 Jan 2020 00:05:00 GMT\nX-Amz-Date: " + stamp,
			"POST\n/\n\nhost:h\nx-amz-date:" + stamp + "\n\nhost;x-amz-date", true,
		},
		"not sorted": {
			"POST / HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\nx-amz-date:" + stamp + "\nhost:h\n\nx-amz-date;host", false,
		},
		"repeated": {
			"POST / HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\nhost:h\nhost:h\nx-amz-date:" + stamp + "\n\nhost;host;x-amz-date", false,
		},
		"empty name": {
			"POST / HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\n:\nhost:h\nx-amz-date:" + stamp + "\n\n;host;x-amz-date", false,
		},
		"capitals": {
			"POST / HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\nhost:h\nx-amz-Date:" + stamp + "\n\nhost;x-amz-Date", false,
		},
		"absent header": {
			"POST / HTTP/1.1\nHost: h\nX-Amz-Date: " + stamp,
			"POST\n/\n\na:\nhost:h\nx-amz-date:" + stamp + "\n\na;host;x-amz-date", false,
		},
		"longest name": {
			"POST / HTTP/1.1\nHost: h\n" + strings.Repeat("a", maxHeaderName) + ": 1\nX-Amz-Date: " + stamp,
			"POST\n/\n\n" + strings.Repeat("a", maxHeaderName) + ":1\nhost:h\nx-amz-date:" + stamp + "\n\n" +
				strings.Repeat("a", maxHeaderName) + ";host;x-amz-date", true,
		},
		"too long a name": {
			"POST / HTTP/1.1\nHost: h\n" + strings.Repeat("a", maxHeaderName+1) + ": 1\nX-Amz-Date: " + stamp,
			"POST\n/\n\n" + strings.Repeat("a", maxHeaderName+1) + ":1\nhost:h\nx-amz-date:" + stamp + "\n\n" +
				strings.Repeat("a", maxHeaderName+1) + ";host;x-amz-date", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			signedHeaders := tt.canonical[strings.LastIndexByte(tt.canonical, '\n')+1:]
			authorization := "\nAuthorization: AWS4-HMAC-SHA256 Credential=" + testKeyID + "/" + scope + ",SignedHeaders=" +
				signedHeaders + ",Signature=" + signText(tt.canonical+"\n"+hashOf(""), stamp, scope)
			r, body, err := receive([]byte(strings.ReplaceAll(tt.request+authorization, "\n", "\r\n") + "\r\n\r\n"))
			require.NoError(t, err)
			_, err = newVerifier(t, testConfig()).Verify(t.Context(), r, body, testServices)
			if tt.ok {
				require.NoError(t, err)
			} else {
				requireError(t, err, invalidSignatureException, mismatchText)
			}
		})
	}
}

// TestDateHeaderHasTwoForms refuses the other forms that a Date header may have elsewhere.
func TestDateHeaderHasTwoForms(t *testing.T) {
	for _, date := range []string{
		"Thursday, 01-Jan-26 00:05:00 GMT", // RFC 850
		"Thu Jan  1 00:05:00 2026",         // ANSI C
		"Thu, 01 Jan 2026 00:05:00 EST",
		"Thu, 01 Jan 2026 00:05:00 +0000",
		"Thu, 01 Jan 2026 00:05:00.5 GMT",
		"2026-01-01T00:05:00Z",
		"20260101T000500",
		"20260101T000500,5Z",
	} {
		r := newRequest(t, testBody)
		signing{}.sign(t, r, []byte(testBody))
		r.Header.Del("X-Amz-Date")
		r.Header.Set("Date", date)
		_, err := newVerifier(t, testConfig()).Verify(t.Context(), r, []byte(testBody), testServices)
		requireError(t, err, incompleteSignatureException,
			"Date must be in ISO-8601 'basic format'. Got '"+date+"'. See http://en.wikipedia.org/wiki/ISO_8601")
	}
}
