package pkcs11

import (
	"encoding/asn1"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// Kinds of keys that live on the token for the time of an import.
const (
	// kindCarrier is imported material until it is seen to be an AES-256 key. It may only encrypt.
	kindCarrier hsm.KeyKind = "carrier"
	// kindUntyped is imported material that makes no AES key. It may do nothing.
	kindUntyped hsm.KeyKind = "untyped"
	// kindTransport is the AES key over imported material. It may only unwrap.
	kindTransport hsm.KeyKind = "transport"
)

// kind is what PKCS#11 must be told of a kind of keys.
type kind struct {
	// spec is the key spec of the public key, as package publickey names it; empty for secret keys.
	spec string
	// size is the length of a secret key in bytes; of a private key that of the modulus or of the order of the curve in bits,
	// and of ML-DSA that of a signature in bytes.
	size int
	// uses are the attributes that are true, CKA_SIGN and the like: one use for a key, but for those that wrap and unwrap
	// and those that encrypt and decrypt.
	uses []uint
	// temporary keys live for an operation alone, and are never generated.
	temporary bool
	// algorithms are those that there may be, the one that is tried first in front.
	algorithms []hsm.Algorithm
	// forms are the ways of making such a key. Tokens that lack the first one may have another.
	forms []form
}

// form is a way of making a key.
type form struct {
	keyType   uint
	mechanism uint // that generates
	// public is what the mechanism is told of the public key.
	public []*p11.Attribute
}

// generated tells whether such keys are made on request.
func (k kind) generated() bool { return len(k.forms) > 0 && !k.temporary }

// pair tells whether such a key is a key pair, of which the private key alone stays.
func (k kind) pair() bool { return k.spec != "" }

// proven tells whether the token's ability to carry such keys is found out before one is made. AES keys are what a Region
// cannot do without: there is nothing to choose.
func (k kind) proven() bool { return k.forms[0].keyType != p11.CKK_AES }

// keyType gives CKA_KEY_TYPE in the first form.
func (k kind) keyType() uint { return k.forms[0].keyType }

// edwards tells whether such a key is a seed that a point of an Edwards curve follows from.
func (k kind) edwards() bool { return len(k.forms) > 0 && k.keyType() == ckkECEdwards }

// slow tells whether such keys take seconds to make.
func (k kind) slow() bool { return len(k.forms) > 0 && k.forms[0].keyType == p11.CKK_RSA }

// kinds has every kind of keys.
var kinds = map[hsm.KeyKind]kind{
	hsm.AES256:     aesKind(hsm.SymmetricDefault, p11.CKA_ENCRYPT, p11.CKA_DECRYPT),
	hsm.AES256Wrap: aesKind("", p11.CKA_WRAP, p11.CKA_UNWRAP),

	kindCarrier:   {temporary: true, size: aesKeySize, uses: []uint{p11.CKA_ENCRYPT}, forms: []form{{keyType: p11.CKK_AES}}},
	kindTransport: {temporary: true, size: aesKeySize, uses: []uint{p11.CKA_UNWRAP}, forms: []form{{keyType: p11.CKK_AES}}},
	kindUntyped:   {temporary: true, forms: []form{{keyType: p11.CKK_GENERIC_SECRET}}}, // which may have any length
	kindShared:    {temporary: true, forms: []form{{keyType: p11.CKK_GENERIC_SECRET}}},

	hsm.RSA2048Import: rsaKind(2048, nil, p11.CKA_UNWRAP, p11.CKA_DECRYPT), // CKA_DECRYPT for the route hsm.InProcess
	hsm.RSA3072Import: rsaKind(3072, nil, p11.CKA_UNWRAP, p11.CKA_DECRYPT),
	hsm.RSA4096Import: rsaKind(4096, nil, p11.CKA_UNWRAP, p11.CKA_DECRYPT),

	hsm.RSA2048Decrypt: rsaKind(2048, rsaDecrypts, p11.CKA_DECRYPT),
	hsm.RSA3072Decrypt: rsaKind(3072, rsaDecrypts, p11.CKA_DECRYPT),
	hsm.RSA4096Decrypt: rsaKind(4096, rsaDecrypts, p11.CKA_DECRYPT),
	hsm.RSA2048Sign:    rsaKind(2048, rsaSigns, p11.CKA_SIGN),
	hsm.RSA3072Sign:    rsaKind(3072, rsaSigns, p11.CKA_SIGN),
	hsm.RSA4096Sign:    rsaKind(4096, rsaSigns, p11.CKA_SIGN),

	hsm.P256Sign:      ecKind("ECC_NIST_P256", 256, oidP256, hsm.ECDSAWithSHA256, p11.CKA_SIGN),
	hsm.P384Sign:      ecKind("ECC_NIST_P384", 384, oidP384, hsm.ECDSAWithSHA384, p11.CKA_SIGN),
	hsm.P521Sign:      ecKind("ECC_NIST_P521", 521, oidP521, hsm.ECDSAWithSHA512, p11.CKA_SIGN),
	hsm.Secp256k1Sign: ecKind("ECC_SECG_P256K1", 256, oidSecp256k1, hsm.ECDSAWithSHA256, p11.CKA_SIGN),
	hsm.P256Derive:    ecKind("ECC_NIST_P256", 256, oidP256, hsm.ECDH, p11.CKA_DERIVE),
	hsm.P384Derive:    ecKind("ECC_NIST_P384", 384, oidP384, hsm.ECDH, p11.CKA_DERIVE),
	hsm.P521Derive:    ecKind("ECC_NIST_P521", 521, oidP521, hsm.ECDH, p11.CKA_DERIVE),
	hsm.Ed25519Sign: {
		spec: "ECC_NIST_EDWARDS25519", size: 256, uses: []uint{p11.CKA_SIGN},
		algorithms: []hsm.Algorithm{hsm.Ed25519, hsm.Ed25519ph},
		forms:      []form{edwardsForm(edwardsName), edwardsForm(edwardsOID)},
	},

	hsm.MLDSA44Sign: mldsaKind(mldsaSets[0]),
	hsm.MLDSA65Sign: mldsaKind(mldsaSets[1]),
	hsm.MLDSA87Sign: mldsaKind(mldsaSets[2]),

	hsm.HMAC224: macKind(28, hsm.HMACWithSHA224, p11.CKK_SHA224_HMAC, p11.CKM_NC_SHA224_HMAC_KEY_GEN),
	hsm.HMAC256: macKind(32, hsm.HMACWithSHA256, p11.CKK_SHA256_HMAC, p11.CKM_NC_SHA256_HMAC_KEY_GEN),
	hsm.HMAC384: macKind(48, hsm.HMACWithSHA384, p11.CKK_SHA384_HMAC, p11.CKM_NC_SHA384_HMAC_KEY_GEN),
	hsm.HMAC512: macKind(64, hsm.HMACWithSHA512, p11.CKK_SHA512_HMAC, p11.CKM_NC_SHA512_HMAC_KEY_GEN),
}

var (
	rsaDecrypts = []hsm.Algorithm{hsm.OAEPWithSHA256, hsm.OAEPWithSHA1}
	rsaSigns    = []hsm.Algorithm{
		hsm.PKCS1WithSHA256, hsm.PKCS1WithSHA384, hsm.PKCS1WithSHA512, hsm.PSSWithSHA256, hsm.PSSWithSHA384, hsm.PSSWithSHA512,
	}
)

// Named curves: RFC 5480, section 2.1.1.1, and SEC 2, appendix A.2.
var (
	oidP256      = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384      = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidP521      = asn1.ObjectIdentifier{1, 3, 132, 0, 35}
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

// CKA_EC_PARAMS of Ed25519 in both ways of PKCS#11 3.0, section 2.3.5: a PrintableString, and the OID of RFC 8410.
var (
	edwardsName = append([]byte{asn1.TagPrintableString, 12}, "edwards25519"...)
	edwardsOID  = []byte{asn1.TagOID, 3, 0x2b, 0x65, 0x70}
)

func aesKind(a hsm.Algorithm, uses ...uint) kind {
	k := kind{size: aesKeySize, uses: uses, forms: []form{{keyType: p11.CKK_AES, mechanism: p11.CKM_AES_KEY_GEN}}}
	if a != "" {
		k.algorithms = []hsm.Algorithm{a}
	}
	return k
}

func rsaKind(bits int, algorithms []hsm.Algorithm, uses ...uint) kind {
	public := []*p11.Attribute{p11.NewAttribute(p11.CKA_MODULUS_BITS, bits), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}
	return kind{
		spec: fmt.Sprintf("RSA_%d", bits), size: bits, uses: uses, algorithms: algorithms,
		forms: []form{{keyType: p11.CKK_RSA, mechanism: p11.CKM_RSA_PKCS_KEY_PAIR_GEN, public: public}},
	}
}

func ecKind(spec string, bits int, curve asn1.ObjectIdentifier, a hsm.Algorithm, use uint) kind {
	params, _ := asn1.Marshal(curve) // the OIDs here are well-formed
	return kind{
		spec: spec, size: bits, uses: []uint{use}, algorithms: []hsm.Algorithm{a},
		forms: []form{{p11.CKK_EC, p11.CKM_EC_KEY_PAIR_GEN, []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, params)}}},
	}
}

func edwardsForm(params []byte) form {
	return form{ckkECEdwards, ckmECEdwardsKeyPairGen, []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, params)}}
}

func mldsaKind(s mldsaSet) kind {
	return kind{
		spec: s.name, size: s.signatureSize, uses: []uint{p11.CKA_SIGN}, algorithms: []hsm.Algorithm{hsm.MLDSA},
		forms: []form{{ckkMLDSA, ckmMLDSAKeyPairGen, []*p11.Attribute{p11.NewAttribute(ckaParameterSet, s.set)}}},
	}
}

// macKind has the names that makes of HSM give to HMAC keys: the standard's generic secret, the key type of one hash, and
// nShield's mechanisms for the latter.
func macKind(size int, a hsm.Algorithm, keyType, vendors uint) kind {
	return kind{size: size, uses: []uint{p11.CKA_SIGN}, algorithms: []hsm.Algorithm{a}, forms: []form{
		{keyType: p11.CKK_GENERIC_SECRET, mechanism: p11.CKM_GENERIC_SECRET_KEY_GEN},
		{keyType: keyType, mechanism: p11.CKM_GENERIC_SECRET_KEY_GEN},
		{keyType: keyType, mechanism: vendors},
	}}
}

// template describes a key object.
type template struct {
	kind hsm.KeyKind
	// form is the index of one of the kind's forms; see Token.form.
	form int
	// uses, if set, are instead of the kind's.
	uses        []uint
	id          []byte
	label       string
	persistent  bool
	extractable bool
	readable    bool // extractable and not even sensitive: for what is to leave the token
	unlabelled  bool // without a label, nobody takes it for one of ours
}

func (t template) use() []uint {
	if t.uses != nil {
		return t.uses
	}
	return kinds[t.kind].uses
}

// flag is a boolean attribute or one that is a number.
type flag = [2]uint

func boolean(kind uint, on bool) flag {
	if on {
		return flag{kind, 1}
	}
	return flag{kind, 0}
}

// numbers gives the attributes that are numbers.
func (t template) numbers() []flag {
	k := kinds[t.kind]
	class := uint(p11.CKO_SECRET_KEY)
	if k.pair() {
		class = p11.CKO_PRIVATE_KEY
	}
	return []flag{{p11.CKA_CLASS, class}, {p11.CKA_KEY_TYPE, k.forms[t.form].keyType}}
}

// privateUses are the attributes that say what a private key may do.
var privateUses = []uint{p11.CKA_SIGN, p11.CKA_DECRYPT, p11.CKA_UNWRAP, p11.CKA_DERIVE}

// aesUses is how many of secretUses every make knows of AES keys.
const aesUses = 4

// booleans gives every boolean attribute, because the defaults differ between makes (NSS and opencryptoki make keys
// extractable); those that some makes do not know may be left out.
func (t template) booleans() (must, may []flag) {
	must = []flag{
		boolean(p11.CKA_TOKEN, t.persistent),
		boolean(p11.CKA_PRIVATE, true),
		boolean(p11.CKA_SENSITIVE, !t.readable),
		boolean(p11.CKA_EXTRACTABLE, t.extractable || t.readable),
	}
	k := kinds[t.kind]
	all, always := secretUses, 0
	if k.pair() {
		all = privateUses
	} else if k.forms[t.form].keyType == p11.CKK_AES {
		always = aesUses
	}
	for i, use := range all {
		if on := slices.Contains(t.use(), use); on || i < always {
			must = append(must, boolean(use, on))
		} else {
			may = append(may, boolean(use, on))
		}
	}
	return must, may
}

// texts gives the attributes that are strings of bytes of an object that is created.
func (t template) texts() []*p11.Attribute {
	var texts []*p11.Attribute
	if params := kinds[t.kind].forms[t.form].params(); params != nil {
		texts = append(texts, p11.NewAttribute(p11.CKA_EC_PARAMS, params))
	}
	if !t.unlabelled {
		texts = append(texts, p11.NewAttribute(p11.CKA_LABEL, labelPrefix+t.label))
	}
	if t.id != nil {
		texts = append(texts, p11.NewAttribute(p11.CKA_ID, t.id))
	}
	return texts
}

// attributes gives the object's attributes for the binding.
func (t template) attributes() (must, may []*p11.Attribute) {
	for _, n := range t.numbers() {
		must = append(must, p11.NewAttribute(n[0], n[1]))
	}
	mustBe, mayBe := t.booleans()
	for _, b := range mustBe {
		must = append(must, p11.NewAttribute(b[0], b[1] == 1))
	}
	for _, b := range mayBe {
		may = append(may, p11.NewAttribute(b[0], b[1] == 1))
	}
	if !t.unlabelled {
		must = append(must, p11.NewAttribute(p11.CKA_LABEL, labelPrefix+t.label))
	}
	if t.id != nil {
		must = append(must, p11.NewAttribute(p11.CKA_ID, t.id))
	}
	return must, may
}

// publicUse gives the attribute of the public key that goes with one of the private key; CKA_DERIVE has none.
var publicUse = map[uint]uint{p11.CKA_SIGN: p11.CKA_VERIFY, p11.CKA_DECRYPT: p11.CKA_ENCRYPT, p11.CKA_UNWRAP: p11.CKA_WRAP}

// publicAttributes are those of the public key that is made beside a private one: a session object, for as long as it takes
// to read it.
func (t template) publicAttributes() (must, may []*p11.Attribute) {
	var uses []uint
	for _, use := range t.use() {
		if u, ok := publicUse[use]; ok {
			uses = append(uses, u)
		}
	}
	f := kinds[t.kind].forms[t.form]
	must, may = flags([]uint{p11.CKA_VERIFY, p11.CKA_ENCRYPT, p11.CKA_WRAP}, uses...)
	must = append(must, f.public...)
	must = append(must,
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, f.keyType),
		p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_PRIVATE, false))
	if !t.unlabelled {
		must = append(must, p11.NewAttribute(p11.CKA_LABEL, labelPrefix+t.label))
	}
	return must, may
}

// make calls f with all attributes, and without the optional ones if the token does not take them.
func (t template) make(f func([]*p11.Attribute) error) error {
	must, may := t.attributes()
	return withFallback(must, may, f)
}
