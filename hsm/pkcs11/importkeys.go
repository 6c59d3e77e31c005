package pkcs11

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// importBits gives the size of the modulus of the kinds of key pairs that material is imported under.
var importBits = map[hsm.KeyKind]int{hsm.RSA2048Import: 2048, hsm.RSA3072Import: 3072, hsm.RSA4096Import: 4096}

// importPair describes a key pair that material is imported under.
type importPair struct {
	bits       int
	id         []byte
	label      string
	persistent bool
	// uses are those of the private key: CKA_UNWRAP, and CKA_DECRYPT for the route hsm.InProcess.
	uses []uint
}

func (t importPair) attributes() (must, may []*p11.Attribute) {
	must, may = flags([]uint{p11.CKA_UNWRAP, p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_DERIVE}, t.uses...)
	must = append(must,
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA),
		p11.NewAttribute(p11.CKA_TOKEN, t.persistent),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_LABEL, labelPrefix+t.label))
	if t.id != nil {
		must = append(must, p11.NewAttribute(p11.CKA_ID, t.id))
	}
	return must, may
}

// publicAttributes are those of a session object that lives until the public key is read from it.
func (t importPair) publicAttributes() (must, may []*p11.Attribute) {
	must, may = flags([]uint{p11.CKA_ENCRYPT, p11.CKA_VERIFY, p11.CKA_WRAP})
	return append(must,
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA),
		p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_PRIVATE, false),
		p11.NewAttribute(p11.CKA_MODULUS_BITS, t.bits),
		p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		p11.NewAttribute(p11.CKA_LABEL, labelPrefix+t.label)), may
}

// makePair makes a key pair and leaves the private key alone on the token. The caller holds objectsMu.
func (s *session) makePair(t importPair) (p11.ObjectHandle, *rsa.PublicKey, error) {
	made, err := s.callMakePair(t)
	if err != nil {
		return 0, nil, fmt.Errorf("generating key pair: %w", err)
	}
	public, err := s.readPublic(made.public)
	_ = s.destroy(made.public) // a session object: gone with the session at the latest
	if err == nil && public.N.BitLen() != t.bits {
		err = &hsm.Error{Class: hsm.Failed, Function: "C_GenerateKeyPair", Cause: fmt.Errorf("a modulus of %d bits", public.N.BitLen())}
	}
	if err != nil {
		_ = s.destroy(made.private)
		return 0, nil, err
	}
	return made.private, public, nil
}

func (s *session) callMakePair(t importPair) (made pair, err error) {
	privateMust, privateMay := t.attributes()
	publicMust, publicMay := t.publicAttributes()
	generate := func(public, private []*p11.Attribute) error {
		return s.m.call("C_GenerateKeyPair", func() (err error) {
			made.public, made.private, err = s.m.ctx.GenerateKeyPair(s.handle, mechanismOf(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil), public, private)
			return err
		})
	}
	err = generate(append(publicMust[:len(publicMust):len(publicMust)], publicMay...), append(privateMust[:len(privateMust):len(privateMust)], privateMay...))
	if refusedTemplate(err) {
		err = generate(publicMust, privateMust)
	}
	return made, err
}

func (s *session) readPublic(object p11.ObjectHandle) (*rsa.PublicKey, error) {
	modulus, err := s.read(object, p11.CKA_MODULUS)
	if err != nil {
		return nil, err
	}
	exponent, err := s.read(object, p11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, err
	}
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if e.Cmp(big.NewInt(65537)) != 0 {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: errors.New("the token shows no public key of the exponent that was asked for")}
	}
	return &rsa.PublicKey{N: n, E: 65537}, nil
}

// generatePair makes a key pair that material can be imported under in every way that the token has.
func (s *session) generatePair(w *ways, ref hsm.KeyRef, id []byte, label string) (hsm.KeyRef, error) {
	uses := w.uses()
	if len(uses) == 0 {
		return hsm.KeyRef{}, &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("the token has no way of importing key material")}
	}
	public, err := s.generatePairProven(w, ref, importPair{bits: importBits[ref.Kind], id: id, label: label, persistent: true, uses: uses})
	if err == nil {
		ref.Public, err = x509.MarshalPKIXPublicKey(public)
	}
	if err != nil {
		return hsm.KeyRef{}, err
	}
	return ref, nil
}

func (s *session) generatePairProven(w *ways, ref hsm.KeyRef, t importPair) (*rsa.PublicKey, error) {
	s.keys.objectsMu.Lock()
	defer s.keys.objectsMu.Unlock()
	private, public, err := s.makePair(t)
	if err != nil {
		return nil, err
	}
	if err := s.provePair(w, private, public); err != nil {
		_ = s.destroy(private)
		return nil, fmt.Errorf("testing a new key pair: %w", err)
	}
	s.keys.know(ref.ID, private)
	return public, nil
}

// provePair imports something under a new key pair, once for each way of decrypting that imports make use of.
func (s *session) provePair(w *ways, private p11.ObjectHandle, public *rsa.PublicKey) error {
	l, err := s.newLanding(w, private, public)
	defer l.clear()
	if err != nil {
		return err
	}
	for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256} {
		if route, ok := w.routes[wrap]; ok {
			if err := l.rehearse(way{wrap, route}); err != nil {
				return err
			}
		}
	}
	return nil
}

// publicOf gives the public key of a reference to a key pair that material is imported under.
func publicOf(ref hsm.KeyRef) (*rsa.PublicKey, error) {
	bits := importBits[ref.Kind]
	if bits == 0 {
		return nil, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("nothing is imported under a key of the kind %q", ref.Kind)}
	}
	parsed, err := x509.ParsePKIXPublicKey(ref.Public)
	if err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("reading the public key of %s: %w", ref.ID, err)}
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok || public.N.BitLen() != bits {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("the public key of %s is none of the kind %s", ref.ID, ref.Kind)}
	}
	return public, nil
}
