package hsm

import (
	"context"
	"crypto/sha256"
	"errors"
)

// Vault keeps small secrets of the service itself, such as the secrets of access keys, encrypted under a key of a
// token.
type Vault struct {
	Token Token
	Key   KeyRef
}

// Seal encrypts a secret of at most MaxPlaintext bytes and binds it to its name. The result may be stored anywhere.
func (v Vault) Seal(ctx context.Context, name string, secret []byte) ([]byte, error) {
	sealed, err := v.Token.Encrypt(ctx, Sealing{Key: v.Key, AAD: vaultAAD(name)}, secret)
	if err != nil {
		return nil, err
	}
	return append(sealed.IV[:], sealed.Data...), nil
}

// Open gives back what Seal was given under the same name. The caller must wipe it.
func (v Vault) Open(ctx context.Context, name string, sealed []byte) ([]byte, error) {
	if len(sealed) <= IVSize+TagSize {
		return nil, &Error{Class: BadInput, Cause: errors.New("sealed secret too short")}
	}
	o := Opening{Key: v.Key, AAD: vaultAAD(name), Sealed: Sealed{IV: [IVSize]byte(sealed[:IVSize]), Data: sealed[IVSize:]}}
	return v.Token.Decrypt(ctx, o)
}

func vaultAAD(name string) AAD {
	return sha256.Sum256(append([]byte("hsmkms vault\x00"), name...))
}
