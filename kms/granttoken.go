package kms

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"hsmkms/hsm"
	"hsmkms/store"
)

// grantTokenName is what grant tokens are sealed under in the vault.
const grantTokenName = "grant token"

// sealGrantToken makes a grant token: the name of the grant's record, which a caller can neither read nor change.
func (s *Service) sealGrantToken(ctx context.Context, g *Grant) (string, error) {
	sealed, err := s.cfg.Vault.Seal(ctx, grantTokenName, []byte(g.record()))
	if err != nil {
		return "", TokenError(err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// openGrantTokens gives the grants of grant tokens. A grant that is retired or revoked is left out: its token is as good as none.
// Grants are in force at once, but on a server that has not heard of a new one yet: this reads them from the store.
func (s *Service) openGrantTokens(ctx context.Context, tokens []string) ([]*Grant, error) {
	var grants []*Grant
	for _, token := range tokens {
		g, err := s.openGrantToken(ctx, token)
		if err != nil {
			return nil, err
		}
		if g != nil {
			grants = append(grants, g)
		}
	}
	return grants, nil
}

// openGrantToken gives the grant of a grant token; nil if it is gone.
func (s *Service) openGrantToken(ctx context.Context, token string) (g *Grant, err error) {
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || base64.RawURLEncoding.EncodeToString(sealed) != token { // the decoder lets line ends and stray bits pass
		return nil, errBadGrantToken(err)
	}
	record, err := s.cfg.Vault.Open(ctx, grantTokenName, sealed)
	if hsm.ClassOf(err) == hsm.BadInput {
		return nil, errBadGrantToken(err)
	}
	if err != nil {
		return nil, TokenError(err)
	}
	if !strings.HasPrefix(string(record), grantPrefix) {
		return nil, errBadGrantToken(errors.New("it names no grant"))
	}
	err = s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		g, err = read[Grant](r, string(record))
		return err
	})
	return g, err
}

func errBadGrantToken(cause error) error {
	return &Error{Type: InvalidGrantToken, Message: "The specified grant token is not valid.", Cause: cause}
}
