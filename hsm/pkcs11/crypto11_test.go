package pkcs11

import (
	"encoding/hex"
	"testing"

	"github.com/ThalesGroup/crypto11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
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
