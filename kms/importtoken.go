package kms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"hsmkms/hsm"
	"hsmkms/store"
)

// importTokenName is what import tokens are sealed under in the vault.
const importTokenName = "import token"

const importTokenVersion = 1

// importToken is what an import token holds, as JSON sealed by the vault: which key, wrapping key and algorithm it is for,
// and until when. A caller can neither read nor change it.
type importToken struct {
	Version int            `json:"version"`
	Region  string         `json:"region"`
	Key     string         `json:"key"`
	Set     string         `json:"set"`
	Kind    hsm.KeyKind    `json:"kind"`
	Wrap    hsm.ImportWrap `json:"wrap"`
	// ValidTo is in milliseconds since the Unix epoch.
	ValidTo int64 `json:"validTo"`
}

// token is what the import token of a set holds.
func (i *importSet) token() importToken {
	return importToken{
		Version: importTokenVersion, Region: i.Region, Key: i.Key, Set: i.id(), Kind: i.Pair.Kind, Wrap: i.Wrap, ValidTo: i.ValidTo.UnixMilli(),
	}
}

// sealImportToken makes the import token of a set.
func (s *Service) sealImportToken(ctx context.Context, set *importSet) ([]byte, error) {
	text, err := json.Marshal(set.token())
	if err != nil {
		return nil, fmt.Errorf("writing an import token: %w", err)
	}
	sealed, err := s.cfg.Vault.Seal(ctx, importTokenName, text)
	if err != nil {
		return nil, TokenError(err)
	}
	return sealed, nil
}

// openImportToken gives the set of an import token that was made for the key and is valid still.
func (s *Service) openImportToken(ctx context.Context, key *Key, sealed []byte) (*importSet, error) {
	text, err := s.cfg.Vault.Open(ctx, importTokenName, sealed)
	if hsm.ClassOf(err) == hsm.BadInput {
		return nil, errBadImportToken(err)
	}
	if err != nil {
		return nil, TokenError(err)
	}
	token, err := parseImportToken(text)
	if err != nil {
		return nil, errBadImportToken(err)
	}
	if token.Region != key.Region || token.Key != key.ID {
		return nil, errBadImportToken(errors.New("made for another key"))
	}
	return s.importSet(ctx, token)
}

// importSet reads the set that a token names.
func (s *Service) importSet(ctx context.Context, token importToken) (set *importSet, err error) {
	err = s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		set, err = read[importSet](r, importRecord(token.Region, token.Set))
		return err
	})
	if err != nil {
		return nil, err
	}
	if set == nil || !s.cfg.Clock().Before(time.UnixMilli(token.ValidTo)) {
		return nil, Errorf(ExpiredImportToken, "The specified import token is expired.")
	}
	if token != set.token() { // the version is a part of it
		return nil, errBadImportToken(errors.New("not that of its import set"))
	}
	return set, nil
}

func parseImportToken(text []byte) (importToken, error) {
	var token importToken
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&token); err != nil {
		return token, fmt.Errorf("reading an import token: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return token, errors.New("reading an import token: something follows it")
	}
	return token, nil
}

func errBadImportToken(cause error) error {
	return &Error{
		Type: InvalidImportToken, Cause: cause, Message: "The provided import token is invalid or is associated with a different KMS key.",
	}
}
