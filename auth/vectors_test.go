package auth

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// vector is a request of AWS's published test suite for Signature Version 4, with the signature given there.
type vector struct {
	request       string // "\n" for CR LF
	body          string
	signedHeaders string
	signature     string
}

// suite has the requests of 2015: service "service", 20150830T123600Z. Those which want a path normalised are left out;
// the package comment says why.
var suite = map[string]vector{
	"get-vanilla":                           {request: "GET / HTTP/1.1", signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	"get-vanilla-empty-query-key":           {request: "GET /?Param1=value1 HTTP/1.1", signature: "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
	"get-vanilla-query-order-key":           {request: "GET /?Param1=value2&Param1=Value1 HTTP/1.1", signature: "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"},
	"get-vanilla-query-order-key-case":      {request: "GET /?Param2=value2&Param1=value1 HTTP/1.1", signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
	"get-vanilla-query-order-value":         {request: "GET /?Param1=value2&Param1=value1 HTTP/1.1", signature: "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694"},
	"get-vanilla-query-unreserved":          {request: "GET /?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz HTTP/1.1", signature: "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
	"get-vanilla-utf8-query":                {request: "GET /?ሴ=bar HTTP/1.1", signature: "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
	"get-unreserved":                        {request: "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz HTTP/1.1", signature: "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
	"get-utf8":                              {request: "GET /ሴ HTTP/1.1", signature: "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
	"get-header-key-duplicate":              {request: "GET / HTTP/1.1\nMy-Header1:value2\nMy-Header1:value2\nMy-Header1:value1", signedHeaders: "host;my-header1;x-amz-date", signature: "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
	"get-header-value-order":                {request: "GET / HTTP/1.1\nMy-Header1:value4\nMy-Header1:value1\nMy-Header1:value3\nMy-Header1:value2", signedHeaders: "host;my-header1;x-amz-date", signature: "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
	"get-header-value-trim":                 {request: "GET / HTTP/1.1\nMy-Header1: value1\nMy-Header2: \"a   b   c\"", signedHeaders: "host;my-header1;my-header2;x-amz-date", signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
	"get-header-value-multiline":            {request: "GET / HTTP/1.1\nMy-Header1:value1\n  value2\n     value3", signedHeaders: "host;my-header1;x-amz-date", signature: "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd"},
	"post-vanilla":                          {request: "POST / HTTP/1.1", signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
	"post-vanilla-query":                    {request: "POST /?Param1=value1 HTTP/1.1", signature: "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
	"post-header-key-sort":                  {request: "POST / HTTP/1.1\nMy-Header1:value1", signedHeaders: "host;my-header1;x-amz-date", signature: "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
	"post-header-value-case":                {request: "POST / HTTP/1.1\nMy-Header1:VALUE1", signedHeaders: "host;my-header1;x-amz-date", signature: "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
	"post-x-www-form-urlencoded":            {request: "POST / HTTP/1.1\nContent-Type:application/x-www-form-urlencoded\nContent-Length:13", body: "Param1=value1", signedHeaders: "content-type;host;x-amz-date", signature: "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	"post-x-www-form-urlencoded-parameters": {request: "POST / HTTP/1.1\nContent-Type:application/x-www-form-urlencoded; charset=utf8\nContent-Length:13", body: "Param1=value1", signedHeaders: "content-type;host;x-amz-date", signature: "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"},
}

// oldSuite has the requests of 2011, which carry a Date header: service "host", Mon, 09 Sep 2011 23:36:00 GMT.
var oldSuite = map[string]vector{
	"get-vanilla":                {request: "GET / HTTP/1.1", signature: "b27ccfbfa7df52a200ff74193ca6e32d4b48b8856fab7ebf1c595d0670a7e470"},
	"post-vanilla":               {request: "POST / HTTP/1.1", signature: "22902d79e148b64e7571c3565769328423fe276eae4b26f83afceda9e767f726"},
	"get-vanilla-query-order":    {request: "GET /?a=foo&b=foo HTTP/1.1", signature: "0dc122f3b28b831ab48ba65cb47300de53fbe91b577fe113edac383730254a3b"},
	"post-header-value-trim":     {request: "POST / HTTP/1.1\nP:phfft", signedHeaders: "date;host;p", signature: "debf546796015d6f6ded8626f5ce98597c33b47b9164cf6b17b4642036fcb592"},
	"post-x-www-form-urlencoded": {request: "POST / HTTP/1.1\nContent-Type:application/x-www-form-urlencoded\nContent-Length:7", body: "foo=bar", signedHeaders: "content-type;date;host", signature: "5a15b22cf462f047318703b92e6f4f38884e4a7ab7b1d6426ca46a8bd1c26cbc"},
}

// verify sends the request of v with these further headers through net/http's parser.
func (v vector) verify(t *testing.T, service string, at time.Time, headers, defaultSigned string) error {
	t.Helper()
	scope := at.Format("20060102") + "/us-east-1/" + service + "/aws4_request"
	request := v.request + headers + "\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/" + scope + ", SignedHeaders=" +
		or(v.signedHeaders, defaultSigned) + ", Signature=" + v.signature + "\n\n"
	r, body, err := receive([]byte(strings.ReplaceAll(request, "\n", "\r\n") + v.body))
	require.NoError(t, err)

	config := testConfig()
	config.Clock = func() time.Time { return at }
	_, err = newVerifier(t, config).Verify(t.Context(), r, body, []string{service})
	return err
}

func TestPublishedSuite(t *testing.T) {
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	for name, v := range suite {
		t.Run(name, func(t *testing.T) {
			headers := "\nHost:example.amazonaws.com\nX-Amz-Date:20150830T123600Z"
			require.NoError(t, v.verify(t, "service", at, headers, "host;x-amz-date"))
			_, rest, _ := strings.Cut(v.request, " ")
			v.request = "PUT " + rest
			requireError(t, v.verify(t, "service", at, headers, "host;x-amz-date"), invalidSignatureException, mismatchText)
		})
	}
}

func TestPublishedOldSuite(t *testing.T) {
	at := time.Date(2011, 9, 9, 23, 36, 0, 0, time.UTC)
	for name, v := range oldSuite {
		t.Run(name, func(t *testing.T) {
			headers := "\nDate:Mon, 09 Sep 2011 23:36:00 GMT\nHost:host.foo.com"
			require.NoError(t, v.verify(t, "host", at, headers, "date;host"))
		})
	}
}

// TestPublishedExample is the request of the documentation.
func TestPublishedExample(t *testing.T) {
	v := vector{
		request: "GET /?Action=ListUsers&Version=2010-05-08 HTTP/1.1\n" +
			"Content-Type: application/x-www-form-urlencoded; charset=utf-8",
		signedHeaders: "content-type;host;x-amz-date",
		signature:     "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
	}
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	require.NoError(t, v.verify(t, "iam", at, "\nHost: iam.amazonaws.com\nX-Amz-Date: 20150830T123600Z", ""))
}

// TestPublishedSigningKeys has the derived keys of the documentation.
func TestPublishedSigningKeys(t *testing.T) {
	for date, want := range map[string]string{
		"20120215": "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d",
		"20150830": "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9",
	} {
		key := deriveKey([]byte(testSecret), date, "us-east-1", "iam")
		require.Equal(t, want, hex.EncodeToString(key[:]))
	}
}
