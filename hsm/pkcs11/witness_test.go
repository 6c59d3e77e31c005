package pkcs11

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
	"hsmkms/publickey"
)

// witness has a session of its own, through the plain miekg binding, in the instance of SoftHSM that the module under
// test has initialised and logged in to.
type witness struct {
	t       *testing.T
	ctx     *p11.Ctx
	slot    uint
	session p11.SessionHandle
}

func newWitness(t *testing.T, soft hsmtest.SoftHSM) *witness {
	t.Helper()
	w := &witness{t: t, ctx: p11.New(soft.Module)}
	require.NotNil(t, w.ctx)
	slots, err := w.ctx.GetSlotList(true)
	require.NoError(t, err)
	for _, slot := range slots {
		info, err := w.ctx.GetTokenInfo(slot)
		require.NoError(t, err)
		if info.Label == label {
			w.slot = slot
			w.session, err = w.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
			require.NoError(t, err)
			return w
		}
	}
	require.FailNow(t, "the token is not there")
	return nil
}

func (w *witness) close() {
	w.t.Helper()
	require.NoError(w.t, w.ctx.CloseSession(w.session))
	w.ctx.Destroy()
}

func (w *witness) find(template ...*p11.Attribute) []p11.ObjectHandle {
	w.t.Helper()
	require.NoError(w.t, w.ctx.FindObjectsInit(w.session, template))
	var all []p11.ObjectHandle
	for {
		some, _, err := w.ctx.FindObjects(w.session, 100)
		require.NoError(w.t, err)
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	require.NoError(w.t, w.ctx.FindObjectsFinal(w.session))
	return all
}

// attributes reads all objects that have a CKA_ID.
func (w *witness) attributes(id hsm.KeyID) []hsmtest.Attributes {
	w.t.Helper()
	raw, err := hex.DecodeString(string(id))
	require.NoError(w.t, err)
	var all []hsmtest.Attributes
	for _, object := range w.find(p11.NewAttribute(p11.CKA_ID, raw)) {
		readable := false
		for _, secret := range []uint{p11.CKA_VALUE, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT} {
			value, _ := w.ctx.GetAttributeValue(w.session, object, []*p11.Attribute{p11.NewAttribute(secret, nil)})
			readable = readable || len(value) > 0 && len(value[0].Value) > 0
		}
		all = append(all, hsmtest.Attributes{
			Token:         w.boolean(object, p11.CKA_TOKEN),
			Sensitive:     w.boolean(object, p11.CKA_SENSITIVE),
			Extractable:   w.boolean(object, p11.CKA_EXTRACTABLE),
			ValueReadable: readable,
		})
	}
	return all
}

// addPublic makes the public key object that goes with a private key.
func (w *witness) addPublic(ref hsm.KeyRef) {
	w.t.Helper()
	raw, err := hex.DecodeString(string(ref.ID))
	require.NoError(w.t, err)
	attributes := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_ID, raw),
		p11.NewAttribute(p11.CKA_LABEL, "hsmkms/"+string(ref.Kind)), p11.NewAttribute(p11.CKA_VERIFY, true),
	}
	key, err := publickey.Parse(ref.Public)
	require.NoError(w.t, err)
	_, err = w.ctx.CreateObject(w.session, append(attributes, publicAttributes(w.t, 0, key)...))
	require.NoError(w.t, err)
}

// publicAttributes are those that make a public key object the key that it is. form is the index of one of its kind's.
func publicAttributes(t *testing.T, form int, key *publickey.Key) []*p11.Attribute {
	t.Helper()
	f := kindOf(key).forms[form]
	attributes := []*p11.Attribute{p11.NewAttribute(p11.CKA_KEY_TYPE, f.keyType)}
	if f.keyType == p11.CKK_RSA {
		public := rsaOf(t, key)
		return append(attributes, p11.NewAttribute(p11.CKA_MODULUS, public.N.Bytes()),
			p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(public.E)).Bytes()))
	}
	point, err := asn1.Marshal(key.Point())
	require.NoError(t, err)
	return append(attributes, p11.NewAttribute(p11.CKA_EC_POINT, point), f.public[0])
}

func rsaOf(t *testing.T, key *publickey.Key) *rsa.PublicKey {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(key.Marshal())
	require.NoError(t, err)
	require.IsType(t, &rsa.PublicKey{}, public)
	return public.(*rsa.PublicKey) //nolint:forcetypeassert // see above
}

func (w *witness) boolean(object p11.ObjectHandle, kind uint) bool {
	w.t.Helper()
	attributes, err := w.ctx.GetAttributeValue(w.session, object, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	require.NoError(w.t, err)
	require.Len(w.t, attributes[0].Value, 1)
	return attributes[0].Value[0] != 0
}

// TestWitness shows that the witness can tell a key that gives itself away.
func TestWitness(t *testing.T) {
	r := newRig(t, options{})
	w := newWitness(t, r.soft)
	defer w.close()
	raw := []byte("0123456789abcdef")
	_, err := w.ctx.GenerateKey(w.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_ID, raw),
		p11.NewAttribute(p11.CKA_SENSITIVE, false), p11.NewAttribute(p11.CKA_EXTRACTABLE, true), p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
	})
	require.NoError(t, err)
	weak := hsmtest.Attributes{Token: true, Extractable: true, ValueReadable: true}
	require.Equal(t, []hsmtest.Attributes{weak}, w.attributes(hsm.KeyID(hex.EncodeToString(raw))))
	objects, err := r.token.Objects(t.Context())
	require.NoError(t, err)
	require.Empty(t, objects, "an object of someone else is listed as ours")
}
