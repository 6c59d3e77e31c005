package api

import (
	"net"

	"hsmkms/policy"
)

// Value gives the values of condition keys about the connection and the request as such. It implements policy.Values.
func (x *exchange) Value(key policy.ConditionKey, _ string) policy.Value {
	switch key {
	case policy.KeyCurrentTime:
		return policy.Moment(x.start)
	case policy.KeyReferer:
		return policy.Optional(x.http.Referer())
	case policy.KeyRequestedRegion:
		return policy.Optional(x.request.Region)
	case policy.KeySecureTransport:
		return policy.Flag(x.http.TLS != nil)
	case policy.KeySourceIP:
		host, _, err := net.SplitHostPort(x.http.RemoteAddr)
		if err != nil {
			return policy.Value{}
		}
		return policy.Text(host)
	case policy.KeyUserAgent:
		return policy.Optional(x.http.UserAgent())
	}
	return policy.Value{}
}
