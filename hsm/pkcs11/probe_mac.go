package pkcs11

import (
	"crypto"
	"crypto/hmac"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// macHash is a hash as HMAC uses it.
type macHash struct {
	bits      int
	hash      crypto.Hash
	mechanism uint
}

var macHashes = []macHash{
	{224, crypto.SHA224, p11.CKM_SHA224_HMAC},
	{256, crypto.SHA256, p11.CKM_SHA256_HMAC},
	{384, crypto.SHA384, p11.CKM_SHA384_HMAC},
	{512, crypto.SHA512, p11.CKM_SHA512_HMAC},
}

func macGroup(h macHash) group {
	k := secret{keyType: p11.CKK_GENERIC_SECRET, size: h.bits / 8, uses: []uint{p11.CKA_SIGN, p11.CKA_VERIFY}}
	var handle p11.ObjectHandle
	return group{
		key: fmt.Sprintf("HMAC_%d", h.bits),
		generate: func(p *prober) (_ string, err error) {
			handle, err = p.generateSecret(k)
			return "", err
		},
		algorithms: []step{{fmt.Sprintf("HMAC_SHA_%d", h.bits), func(p *prober) (string, error) { return h.macs(p, k, handle) }}},
	}
}

// macs checks the generated key, which is one as the service would make it, by the token itself, and the algorithm by a
// key of known value.
func (h macHash) macs(p *prober, k secret, generated p11.ObjectHandle) (string, error) {
	message, err := p.random(64)
	if err != nil {
		return "", err
	}
	mechanism := mechanismOf(h.mechanism, nil)
	mac, err := p.sign(mechanism, generated, message)
	if err != nil {
		return "", err
	}
	if err := p.verify(mechanism, generated, message, mac); err != nil {
		return "", err
	}
	known, value, err := p.known(k)
	if errors.Is(err, errNoKnownKey) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	if mac, err = p.sign(mechanism, known, message); err != nil {
		return "", err
	}
	f := hmac.New(h.hash.New, value)
	f.Write(message)
	if !hmac.Equal(mac, f.Sum(nil)) {
		return "", errWrongResult
	}
	return "", nil
}
