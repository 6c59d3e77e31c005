package pkcs11

import (
	"bytes"
	"cmp"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
	"hsmkms/test/wycheproof"
)

// Signatures are verified in the process, with the package publickey. These tests hold its answers to those of C_Verify.

// referee has a key in both places.
type referee struct {
	w      *witness
	key    *publickey.Key
	object p11.ObjectHandle
}

func (w *witness) referee(form int, key *publickey.Key) *referee {
	w.t.Helper()
	attributes := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), p11.NewAttribute(p11.CKA_TOKEN, false), p11.NewAttribute(p11.CKA_VERIFY, true),
	}
	object, err := w.ctx.CreateObject(w.session, append(attributes, publicAttributes(w.t, form, key)...))
	require.NoError(w.t, err)
	return &referee{w, key, object}
}

// ask gives the answers of publickey and of the token to a signature, that of ECDSA in DER. The token, which is to be told r
// and s, has none for one that has no such numbers.
func (r *referee) ask(a hsm.Algorithm, input, signature []byte) (here bool, token *bool) {
	r.w.t.Helper()
	asked := publickey.Signed{Algorithm: string(a), Type: publickey.Digest, Message: input, Signature: signature}
	if a == hsm.Ed25519 {
		asked.Type = publickey.Raw
	}
	err := r.key.Verify(asked)
	require.True(r.w.t, err == nil || errors.Is(err, publickey.ErrSignature), "%v", err)
	here = err == nil
	if signers[a].raw {
		var has bool
		if signature, has = rawSignature(signature, sizeOf(r.key)); !has {
			return here, nil
		}
	}
	valid := r.w.verifies(r.object, a, input, signature)
	return here, &valid
}

// verifies is C_Verify. It fails for nothing but signatures: then the token would not have said what it makes of one.
func (w *witness) verifies(object p11.ObjectHandle, a hsm.Algorithm, input, signature []byte) bool {
	w.t.Helper()
	mechanism := p11.NewMechanism(signers[a].mechanism, signers[a].parameter)
	require.NoError(w.t, w.ctx.VerifyInit(w.session, []*p11.Mechanism{mechanism}, object))
	err := w.ctx.Verify(w.session, append(slices.Clip(signers[a].prefix), input...), signature)
	if err != nil {
		require.Contains(w.t, []error{p11.Error(p11.CKR_SIGNATURE_INVALID), p11.Error(p11.CKR_SIGNATURE_LEN_RANGE)}, err)
	}
	return err == nil
}

// sizeOf is the length of r, and of s.
func sizeOf(key *publickey.Key) int { return (kindOf(key).size + 7) / 8 }

// kindOf finds the kind of the keys that sign and have such public keys.
func kindOf(key *publickey.Key) kind {
	for _, name := range hsm.Kinds() {
		if k := kinds[name]; k.spec == key.Spec() && k.uses[0] == p11.CKA_SIGN {
			return k
		}
	}
	return kind{}
}

// rawSignature reads what may be meant by an ECDSA signature: also in BER, and whatever follows the numbers.
func rawSignature(der []byte, size int) ([]byte, bool) {
	tag, body, _ := berValue(der)
	first, r, rest := berValue(body)
	second, s, _ := berValue(rest)
	negative := len(r) > 0 && r[0] >= 0x80 || len(s) > 0 && s[0] >= 0x80
	r, s = bytes.TrimLeft(r, "\x00"), bytes.TrimLeft(s, "\x00")
	if tag != 0x30 || first != asn1.TagInteger || second != asn1.TagInteger || negative || len(r) > size || len(s) > size {
		return nil, false
	}
	raw := make([]byte, 2*size)
	copy(raw[size-len(r):], r)
	copy(raw[2*size-len(s):], s)
	return raw, true
}

// berValue takes a value off b: of a known length, in whichever form, or an indefinite one. Of a value that is cut short it
// gives what there is.
func berValue(b []byte) (tag byte, value, rest []byte) {
	if len(b) < 2 {
		return 0, nil, nil
	}
	tag, length, b := b[0], int(b[1]), b[2:]
	if length == 0x80 {
		return tag, b, nil
	}
	if n := length & 0x7f; length > 0x80 {
		if n > len(b) {
			return 0, nil, nil
		}
		number := new(big.Int).SetBytes(b[:n])
		if !number.IsInt64() {
			return 0, nil, nil
		}
		length, b = int(min(number.Int64(), int64(len(b)-n))), b[n:]
	}
	length = min(length, len(b))
	return tag, b[:length], b[length:]
}

// altered gives alterations of a signature that every algorithm has.
func altered(signature []byte) map[string][]byte {
	all := map[string][]byte{
		"none": nil, "one byte": {0}, "half": signature[:len(signature)/2], "truncated": signature[:len(signature)-1],
		"truncated in front": signature[1:], "extended": append(bytes.Clone(signature), 0), "extended in front": append([]byte{0}, signature...),
		"twice": append(bytes.Clone(signature), signature...), "zeros": make([]byte, len(signature)), "ones": bytes.Repeat([]byte{0xff}, len(signature)),
		"one": append(make([]byte, len(signature)-1), 1), "reversed": bytes.Clone(signature),
	}
	slices.Reverse(all["reversed"])
	for i := range signature {
		all[fmt.Sprintf("bit of byte %d", i)] = flipped(signature, i, 1<<(i%8))
	}
	return all
}

func flipped(b []byte, i int, bit byte) []byte {
	b = bytes.Clone(b)
	b[i] ^= bit
	return b
}

// orders are those of the groups. The first three are crypto/elliptic's; SEC 2, section 2.4.1, and RFC 8032, section 5.1.
var orders = map[string]*big.Int{
	"ECC_NIST_P256": elliptic.P256().Params().N, "ECC_NIST_P384": elliptic.P384().Params().N, "ECC_NIST_P521": elliptic.P521().Params().N,
	"ECC_SECG_P256K1":       hexNumber("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
	"ECC_NIST_EDWARDS25519": hexNumber("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed"),
}

func hexNumber(digits string) *big.Int {
	n, _ := new(big.Int).SetString(digits, 16)
	return n
}

// alteredECDSA plays with the numbers of a signature, and with their encoding.
func alteredECDSA(t *testing.T, key *publickey.Key, signature []byte) map[string][]byte {
	t.Helper()
	var was struct{ R, S *big.Int }
	_, err := asn1.Unmarshal(signature, &was)
	require.NoError(t, err)
	n, zero, one := orders[key.Spec()], new(big.Int), big.NewInt(1)
	sum := func(x, y *big.Int) *big.Int { return new(big.Int).Add(x, y) }
	minus := func(x *big.Int) *big.Int { return new(big.Int).Sub(n, x) }
	all := map[string][]byte{}
	for name, x := range map[string]struct{ R, S *big.Int }{
		"as it was": was, "swapped": {was.S, was.R}, "r 0": {zero, was.S}, "s 0": {was.R, zero}, "both 0": {zero, zero}, "r 1": {one, was.S},
		"s 1": {was.R, one}, "both 1": {one, one}, "r order": {n, was.S}, "s order": {was.R, n}, "both order": {n, n},
		"r of more than the order": {sum(was.R, n), was.S}, "s of more than the order": {was.R, sum(was.S, n)},
		"r order + 1": {sum(n, one), was.S}, "r order - 1": {minus(one), was.S}, "s order - 1": {was.R, minus(one)},
		"other s": {was.R, minus(was.S)}, "other r": {minus(was.R), was.S},
		"r negative": {new(big.Int).Neg(was.R), was.S}, "s negative": {was.R, new(big.Int).Neg(was.S)},
	} {
		all[name], err = asn1.Marshal(x)
		require.NoError(t, err)
	}
	maps.Copy(all, encodings(was.R, was.S))
	return all
}

// encodings are those of the numbers of a signature that are not DER.
func encodings(r, s *big.Int) map[string][]byte {
	value := func(tag byte, long bool, contents ...byte) []byte {
		if long || len(contents) > 0x7f {
			return append([]byte{tag, 0x82, byte(len(contents) >> 8), byte(len(contents))}, contents...)
		}
		return append([]byte{tag, byte(len(contents))}, contents...)
	}
	integer := func(x *big.Int) []byte { return value(asn1.TagInteger, false, append([]byte{0}, x.Bytes()...)...) }
	long := func(x *big.Int) []byte { return value(asn1.TagInteger, true, append([]byte{0}, x.Bytes()...)...) }
	zeros := func(x *big.Int) []byte { return value(asn1.TagInteger, false, append([]byte{0, 0}, x.Bytes()...)...) }
	both := append(integer(r), integer(s)...)
	return map[string][]byte{
		"BER: long length":           value(0x30, true, both...),
		"BER: long length of r":      value(0x30, false, append(long(r), integer(s)...)...),
		"BER: indefinite length":     append(append([]byte{0x30, 0x80}, both...), 0, 0),
		"BER: zeros in front of r":   value(0x30, false, append(zeros(r), integer(s)...)...),
		"BER: zeros in front of s":   value(0x30, false, append(integer(r), zeros(s)...)...),
		"BER: more after s":          value(0x30, false, append(slices.Clone(both), 5, 0)...),
		"BER: more after the end":    append(value(0x30, false, both...), 5, 0),
		"BER: bytes after the end":   append(value(0x30, false, both...), 0, 0),
		"SET of the numbers":         value(0x31, false, both...),
		"numbers without a SEQUENCE": both,
	}
}

// alteredModulo adds to a signature what makes no difference to a verifier that does not look at its range.
func alteredModulo(t *testing.T, key *publickey.Key, signature []byte) map[string][]byte {
	t.Helper()
	if order := orders[key.Spec()]; order != nil { // Ed25519
		s := slices.Clone(signature[32:])
		slices.Reverse(s)
		more := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
		slices.Reverse(more)
		neutral := append([]byte{1}, make([]byte, 31)...)
		return map[string][]byte{
			"s of more than the order": append(slices.Clone(signature[:32]), more...), "s 0": append(slices.Clone(signature[:32]), make([]byte, 32)...),
			"R neutral": append(slices.Clone(neutral), signature[32:]...), "R neutral, s 0": append(slices.Clone(neutral), make([]byte, 32)...),
		}
	}
	n := rsaOf(t, key).N
	all := map[string][]byte{"modulus": n.Bytes(), "modulus - 1": new(big.Int).Sub(n, big.NewInt(1)).Bytes(), "modulus + 1": new(big.Int).Add(n, big.NewInt(1)).Bytes()}
	if more := new(big.Int).Add(n, new(big.Int).SetBytes(signature)).Bytes(); len(more) == len(signature) {
		all["of more than the modulus"] = more
	}
	return all
}

// TestVerifyAsToken has both verify signatures of the token, and what is not quite one. They differ in encodings of ECDSA
// signatures alone, of which a token knows nothing: it has r and s put after each other. The package publickey takes DER, as
// AWS documents it and as crypto/ecdsa does, and no BER, so that nobody makes a second signature of a first one by writing it
// in another way.
func TestVerifyAsToken(t *testing.T) {
	r := newRig(t, options{})
	w := newWitness(t, r.soft)
	defer w.close()
	ed := 0
	for _, kind := range []hsm.KeyKind{hsm.RSA2048Sign, hsm.P256Sign, hsm.P384Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign} {
		support, err := r.token.Support(t.Context(), kind)
		require.NoError(t, err)
		mine, other := r.signer(w, kind), r.signer(w, kind)
		for _, a := range kinds[kind].algorithms {
			if _, has := support.Algorithms[a]; !has {
				require.Equal(t, hsm.Ed25519ph, a, "SoftHSM was to have the others")
				ed++
				continue
			}
			t.Run(string(kind)+"/"+string(a), func(t *testing.T) { mine.testAgrees(t, other, a) })
		}
	}
	require.Equal(t, 1, ed)
}

// keyOfReferee is a key that signs on the token.
type keyOfReferee struct {
	*referee
	rig *rig
	ref hsm.KeyRef
}

func (r *rig) signer(w *witness, kind hsm.KeyKind) keyOfReferee {
	r.t.Helper()
	ref := r.generate(hsm.KeyRequest{Kind: kind})
	key, err := publickey.Parse(ref.Public)
	require.NoError(r.t, err)
	return keyOfReferee{w.referee(r.token.form(kind), key), r, ref}
}

func (k keyOfReferee) sign(t *testing.T, a hsm.Algorithm, input []byte) []byte {
	t.Helper()
	signature, err := k.rig.token.Sign(t.Context(), hsm.Signing{Key: k.ref, Algorithm: a, Input: input})
	require.NoError(t, err)
	return signature
}

func (k keyOfReferee) testAgrees(t *testing.T, other keyOfReferee, a hsm.Algorithm) {
	for round := range 3 {
		input := bytes.Repeat([]byte{byte(0x35 + round)}, cmp.Or(signers[a].input, 1+40*round))
		signature := k.sign(t, a, input)
		k.requireSame(t, a, input, signature, "as it was", true)
		other.requireSame(t, a, input, signature, "of another key", false)
		k.requireSame(t, a, input, other.sign(t, a, input), "by another key", false)
		for i := range input {
			k.requireSame(t, a, flipped(input, i, 1<<(i%8)), signature, fmt.Sprintf("bit of byte %d of the input", i), false)
		}
		all := altered(signature)
		if signers[a].raw {
			maps.Copy(all, alteredECDSA(t, k.key, signature))
		} else {
			maps.Copy(all, alteredModulo(t, k.key, signature))
		}
		for name, changed := range all {
			k.requireSame(t, a, input, changed, name, name == "as it was" || name == "other s")
		}
	}
}

// requireSame demands that both answer what is wanted, but for encodings that are BER alone: those the token takes, after
// rawSignature has made numbers of them.
func (r *referee) requireSame(t *testing.T, a hsm.Algorithm, input, signature []byte, name string, want bool) {
	t.Helper()
	here, token := r.ask(a, input, signature)
	require.Equal(t, want, here, "%s: %x", name, signature)
	switch {
	case strings.HasPrefix(name, "BER: "):
		require.True(t, token != nil && *token, "the token was to take %s: %x", name, signature)
	case token == nil:
		require.False(t, want, "%s: %x", name, signature)
	case signers[a].raw && !isDER(signature):
	default:
		require.Equal(t, want, *token, "%s: %x", name, signature)
	}
}

// isDER tells whether a signature has the one encoding that its numbers have in DER.
func isDER(signature []byte) bool {
	var numbers struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(signature, &numbers)
	again, _ := asn1.Marshal(numbers)
	return err == nil && len(rest) == 0 && bytes.Equal(again, signature)
}

// vector is a case of verification of Wycheproof, and vectorKey a group of cases.
type (
	vector struct {
		wycheproof.Case
		Message   wycheproof.Hex `json:"msg"`
		Signature wycheproof.Hex `json:"sig"`
	}
	vectorKey struct {
		DER wycheproof.Hex `json:"publicKeyDer"`
	}
)

// vectorsOf are the files with the vectors of an algorithm; those of the package publickey include many more.
var vectorsOf = map[hsm.Algorithm][]string{
	hsm.PKCS1WithSHA256: {"rsa_signature_[234]*_sha256_test.json"},
	hsm.PKCS1WithSHA384: {"rsa_signature_[234]*_sha384_test.json"},
	hsm.PKCS1WithSHA512: {"rsa_signature_[234]*_sha512_test.json"},
	hsm.PSSWithSHA256:   {"rsa_pss_*_sha256_mgf1_32_test.json"},
	hsm.PSSWithSHA384:   {"rsa_pss_*_sha384_mgf1_48_test.json"},
	hsm.PSSWithSHA512:   {"rsa_pss_*_sha512_mgf1_64_test.json"},
	hsm.ECDSAWithSHA256: {"ecdsa_secp256[kr]1_sha256_test.json"},
	hsm.ECDSAWithSHA384: {"ecdsa_secp384r1_sha384_test.json"},
	hsm.ECDSAWithSHA512: {"ecdsa_secp521r1_sha512_test.json"},
	hsm.Ed25519:         {"ed25519_test.json"},
}

// TestVerifyVectorsAsToken has both verify the vectors of Wycheproof. That publickey answers what Wycheproof wants, and what it
// makes of acceptable ones, is tested beside it too.
func TestVerifyVectorsAsToken(t *testing.T) {
	r := newRig(t, options{})
	w := newWitness(t, r.soft)
	defer w.close()
	_, err := r.token.Support(t.Context(), hsm.Ed25519Sign)
	require.NoError(t, err)
	for a, files := range vectorsOf {
		suite := wycheproof.Suite[vectorKey, vector]{Files: files, Group: func(t *testing.T, _ string, g vectorKey) func(*testing.T, vector) wycheproof.Outcome {
			return r.vectorsUnder(t, w, a, g.DER)
		}}
		if strings.HasPrefix(string(a), "RSASSA_PKCS1") {
			suite.Acceptable = map[string]wycheproof.Decision{"MissingNull": {Accepted: false, Reason: "both insist on it"}}
		}
		t.Run(string(a), suite.Run)
	}
}

func (r *rig) vectorsUnder(t *testing.T, w *witness, a hsm.Algorithm, der []byte) func(*testing.T, vector) wycheproof.Outcome {
	t.Helper()
	key, err := publickey.Parse(der)
	require.NoError(t, err)
	form := 0
	if a == hsm.Ed25519 {
		form = r.token.form(hsm.Ed25519Sign)
	}
	referee := w.referee(form, key)
	algorithm, _ := publickey.Signing(string(a))
	return func(t *testing.T, c vector) wycheproof.Outcome {
		input, err := algorithm.Input(publickey.Raw, c.Message)
		require.NoError(t, err)
		here, token := referee.ask(a, input, c.Signature)
		if token != nil && (!signers[a].raw || isDER(c.Signature)) {
			require.Equal(t, here, *token, "case %d: %s", c.ID, c.Comment)
		}
		return wycheproof.Took(here)
	}
}
