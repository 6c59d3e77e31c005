package pkcs11

import (
	"context"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// macs gives the mechanism of each algorithm. Its MACs are as long as the keys of the AWS API.
var macs = map[hsm.Algorithm]uint{
	hsm.HMACWithSHA224: p11.CKM_SHA224_HMAC,
	hsm.HMACWithSHA256: p11.CKM_SHA256_HMAC,
	hsm.HMACWithSHA384: p11.CKM_SHA384_HMAC,
	hsm.HMACWithSHA512: p11.CKM_SHA512_HMAC,
}

// MAC implements hsm.Token.
func (t *Token) MAC(ctx context.Context, ref hsm.KeyRef, a hsm.Algorithm, message []byte) ([]byte, error) {
	if _, known := macs[a]; !known || !slices.Contains(kinds[ref.Kind].algorithms, a) {
		return nil, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("%q with a key of the kind %q", a, ref.Kind)}
	}
	if n := len(message); n == 0 || n > hsm.MaxMessage {
		return nil, &hsm.Error{Class: hsm.BadInput, Cause: fmt.Errorf("a message of %d bytes", n)}
	}
	if _, err := t.demand(ctx, ref.Kind, a); err != nil { // the token may have such keys in a form of its own
		return nil, err
	}
	return do(ctx, t, &task[[]byte]{f: func(s *session) (mac []byte, err error) {
		err = s.withKey(ref, func(key *loadedKey) error {
			mac, err = s.mac(key, ref.Kind, message)
			return err
		})
		return mac, err
	}})
}

// mac authenticates a message with a key of one of the HMAC kinds, each of which has one algorithm.
func (s *session) mac(key *loadedKey, kind hsm.KeyKind, message []byte) ([]byte, error) {
	k := kinds[kind]
	return s.signBare(bare{key: key.handle, mechanism: macs[k.algorithms[0]], in: message}, k.size)
}
