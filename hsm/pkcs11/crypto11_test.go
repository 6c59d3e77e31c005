package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// TestCrypto11FindsAndUsesOurKeys has somebody else's client encrypt and decrypt with the object that we made. The module is
// closed meanwhile, for it has one owner at a time in a process.
func TestCrypto11FindsAndUsesOurKeys(t *testing.T) {
	soft := newSoft(t)
	open := func() (*Module, *Token) {
		module, err := OpenModule(ModuleConfig{Path: soft.Module})
		require.NoError(t, err)
		token, err := module.OpenToken(options{}.token())
		require.NoError(t, err)
		return module, token
	}
	module, token := open()
	ref, err := token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256, Label: "witnessed"})
	require.NoError(t, err)
	aad := hsm.AAD{1, 2, 3}
	ours, err := token.Encrypt(t.Context(), hsm.Sealing{Key: ref, AAD: aad}, []byte("from us"))
	require.NoError(t, err)
	require.NoError(t, module.Close())

	theirs := hsm.Opening{Key: ref, AAD: aad, Sealed: hsm.Sealed{IV: [hsm.IVSize]byte{9}}}
	func() {
		secret, err := pin()
		require.NoError(t, err)
		witness, err := crypto11.Configure(&crypto11.Config{
			Path: soft.Module, TokenLabel: label, Pin: string(secret), MaxSessions: 4, GCMIVLength: hsm.IVSize,
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, witness.Close()) }()
		id, err := hex.DecodeString(string(ref.ID))
		require.NoError(t, err)
		key, err := witness.FindKey(id, []byte("hsmkms/witnessed"))
		require.NoError(t, err)
		require.NotNil(t, key)
		gcm, err := key.NewGCM()
		require.NoError(t, err)
		plaintext, err := gcm.Open(nil, ours.IV[:], ours.Data, aad[:])
		require.NoError(t, err)
		require.Equal(t, "from us", string(plaintext))
		theirs.Sealed.Data = gcm.Seal(nil, theirs.Sealed.IV[:], []byte("from them"), aad[:])
	}()

	module, token = open()
	defer func() { require.NoError(t, module.Close()) }()
	plaintext, err := token.Decrypt(t.Context(), theirs)
	require.NoError(t, err)
	require.Equal(t, "from them", string(plaintext))
}

// TestCrypto11UsesOurPairs has somebody else's client sign with the private keys that we made, and verify with the public keys
// in our references what we signed; and it makes our MACs. It insists on a public key object, which we do not leave on the
// token, so it gets one with the values of the reference, and so knows by its own that the two belong together.
func TestCrypto11UsesOurPairs(t *testing.T) {
	soft := newSoft(t)
	module, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(t, err)
	token, err := module.OpenToken(options{}.token())
	require.NoError(t, err)
	digest, message := sha256.Sum256([]byte("message")), []byte("message")
	refs, signatures := map[hsm.KeyKind]hsm.KeyRef{}, map[hsm.KeyKind][]byte{}
	algorithms := map[hsm.KeyKind]hsm.Algorithm{hsm.RSA2048Sign: hsm.PKCS1WithSHA256, hsm.P256Sign: hsm.ECDSAWithSHA256}
	for kind, a := range algorithms {
		refs[kind], err = token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: kind, Label: string(kind)})
		require.NoError(t, err)
		signatures[kind], err = token.Sign(t.Context(), hsm.Signing{Key: refs[kind], Algorithm: a, Input: digest[:]})
		require.NoError(t, err)
	}
	macKey, err := token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.HMAC256, Label: "mac"})
	require.NoError(t, err)
	mac, err := token.MAC(t.Context(), macKey, hsm.HMACWithSHA256, message)
	require.NoError(t, err)
	w := newWitness(t, soft)
	for _, ref := range refs {
		w.addPublic(ref)
	}
	w.close()
	require.NoError(t, module.Close())

	secret, err := pin()
	require.NoError(t, err)
	witness, err := crypto11.Configure(&crypto11.Config{Path: soft.Module, TokenLabel: label, Pin: string(secret), MaxSessions: 4})
	require.NoError(t, err)
	defer func() { require.NoError(t, witness.Close()) }()
	for kind, ref := range refs {
		id, err := hex.DecodeString(string(ref.ID))
		require.NoError(t, err)
		signer, err := witness.FindKeyPair(id, []byte("hsmkms/"+string(kind)))
		require.NoError(t, err)
		theirs, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		require.NoError(t, err)
		public, err := publickey.Parse(ref.Public)
		require.NoError(t, err)
		signed := publickey.Signed{Algorithm: string(algorithms[kind]), Type: publickey.Digest, Message: digest[:], Signature: theirs}
		require.NoError(t, public.Verify(signed), kind)
		switch public := signer.Public().(type) {
		case *rsa.PublicKey:
			require.NoError(t, rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signatures[kind]))
		case *ecdsa.PublicKey:
			require.True(t, ecdsa.VerifyASN1(public, digest[:], signatures[kind]))
		default:
			require.FailNow(t, "another type of key")
		}
	}
	id, err := hex.DecodeString(string(macKey.ID))
	require.NoError(t, err)
	key, err := witness.FindKey(id, nil)
	require.NoError(t, err)
	require.NotNil(t, key)
	hash, err := key.NewHMAC(p11.CKM_SHA256_HMAC, 0)
	require.NoError(t, err)
	_, err = hash.Write(message)
	require.NoError(t, err)
	require.Equal(t, mac, hash.Sum(nil))
}
