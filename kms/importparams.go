package kms

import (
	"context"
	"slices"
	"time"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// GetParametersForImportInput is the input of GetParametersForImport.
type GetParametersForImportInput struct {
	KeyId             string
	WrappingAlgorithm string
	WrappingKeySpec   string
}

// GetParametersForImportOutput is the output of GetParametersForImport.
type GetParametersForImportOutput struct {
	ImportToken       []byte     `json:",omitempty"`
	KeyId             string     `json:",omitempty"`
	ParametersValidTo *Timestamp `json:",omitempty"`
	PublicKey         []byte     `json:",omitempty"`
}

// The ways of encrypting key material: directly under the wrapping key, or under an AES key that comes with it.
var (
	directly = []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256}
	byAES    = []hsm.ImportWrap{hsm.RSAAESSHA1, hsm.RSAAESSHA256}
	anyWay   = slices.Concat(directly, byAES)
)

// importables has a row for every KeySpec whose material can be imported, with the ways in which it may be encrypted. That RSA
// keys come by an AES key alone and HMAC keys never do is in the description of GetParametersForImport's WrappingAlgorithm.
var importables = map[KeySpec][]hsm.ImportWrap{
	SymmetricDefault:        anyWay,
	"RSA_2048":              byAES,
	"RSA_3072":              byAES,
	"RSA_4096":              byAES,
	"ECC_NIST_P256":         anyWay,
	"ECC_NIST_P384":         anyWay,
	"ECC_NIST_P521":         anyWay,
	"ECC_SECG_P256K1":       anyWay,
	"ECC_NIST_EDWARDS25519": anyWay,
	"HMAC_224":              directly,
	"HMAC_256":              directly,
	"HMAC_384":              directly,
	"HMAC_512":              directly,
}

// fits tells whether material of a KeySpec fits under a wrapping key. That this depends on the KeySpec, not on how long the
// material is, is in the description of GetParametersForImport too.
func fits(spec KeySpec, wrap hsm.ImportWrap, wrappingKey string) bool {
	return spec != "ECC_NIST_P521" || wrappingKey != "RSA_2048" || !slices.Contains(directly, wrap)
}

// wrappingKeys are the kinds of wrapping keys by their names in the AWS API. SM2 is for AWS's Regions in China.
var wrappingKeys = map[string]hsm.KeyKind{
	"RSA_2048": hsm.RSA2048Import,
	"RSA_3072": hsm.RSA3072Import,
	"RSA_4096": hsm.RSA4096Import,
}

// GetParametersForImport makes a key pair on the token to encrypt key material to, and an import token that says what it
// is for. Both are valid for 24 hours, and a key has at most ten such sets at a time: the oldest makes room for one more.
func (s *Service) GetParametersForImport(ctx context.Context, r *Request, in *GetParametersForImportInput) (*GetParametersForImportOutput, error) {
	key, err := s.external(ctx, r, actionGetParametersForImport, in.KeyId, asked{values: []given{
		text(policy.KeyWrappingAlgorithm, in.WrappingAlgorithm), text(policy.KeyWrappingKeySpec, in.WrappingKeySpec),
	}})
	if err != nil {
		return nil, err
	}
	set := &importSet{Region: key.Region, Key: key.ID, Wrap: hsm.ImportWrap(in.WrappingAlgorithm)}
	request, err := s.wrappingKey(ctx, key, in)
	if err != nil {
		return nil, err
	}
	defer s.making.begin()()
	if set.Pair, err = s.cfg.Regions[key.Region].Token.GenerateKey(ctx, request); err != nil {
		return nil, roomError(err)
	}
	set.ValidTo = s.cfg.Clock().UTC().Truncate(time.Millisecond).Add(importValidity)
	token, err := s.keepImport(ctx, r, set, key)
	if err != nil {
		s.discard(ctx, key.Region, set.Pair, err)
		return nil, err
	}
	return &GetParametersForImportOutput{
		ImportToken: token, KeyId: key.ARN(), ParametersValidTo: &Timestamp{set.ValidTo}, PublicKey: set.Pair.Public,
	}, nil
}

// external finds a key for an action that is for keys with imported material only.
func (s *Service) external(ctx context.Context, r *Request, a action, keyID string, q asked) (*Key, error) {
	key, err := s.authorize(ctx, r, a, keyID, q)
	if err != nil {
		return nil, err
	}
	return key, usableExternal(r, a, key)
}

// usableExternal is usable for such an action: the origin comes before the state.
func usableExternal(r *Request, a action, key *Key) error {
	if key.Origin != OriginExternal {
		return wrongOrigin(key)
	}
	return usable(r, a, key)
}

// wrappingKey says what wrapping key to make, if material can be imported as the request says.
func (s *Service) wrappingKey(ctx context.Context, key *Key, in *GetParametersForImportInput) (hsm.KeyRequest, error) {
	kind, known := wrappingKeys[in.WrappingKeySpec]
	if !known {
		return hsm.KeyRequest{}, Errorf(UnsupportedOperation, "WrappingKeySpec %s is not supported.", in.WrappingKeySpec)
	}
	wrap := hsm.ImportWrap(in.WrappingAlgorithm)
	if !slices.Contains(importables[key.Spec], wrap) {
		return hsm.KeyRequest{}, Errorf(UnsupportedOperation, "WrappingAlgorithm %s is not supported for KeySpec %s.", wrap, key.Spec)
	}
	if !fits(key.Spec, wrap, in.WrappingKeySpec) {
		return hsm.KeyRequest{}, Errorf(UnsupportedOperation, "WrappingAlgorithm %s with WrappingKeySpec %s is not supported for KeySpec %s.",
			wrap, in.WrappingKeySpec, key.Spec)
	}
	routes, err := s.cfg.Regions[key.Region].Token.ImportRoutes(ctx, key.purpose().kind)
	if err != nil {
		return hsm.KeyRequest{}, TokenError(err)
	}
	if _, open := routes[wrap]; !open {
		return hsm.KeyRequest{}, Errorf(UnsupportedOperation, "WrappingAlgorithm %s is not supported by the HSM token of this Region.", wrap)
	}
	return hsm.KeyRequest{Kind: kind, Label: "import/" + key.ID}, nil
}

// keepImport stores a set and makes its import token. The wrapping keys of sets that make room for it are destroyed before it
// returns: if they waited for the schedule, callers could fill the token with them faster than that empties it.
func (s *Service) keepImport(ctx context.Context, r *Request, set *importSet, key *Key) ([]byte, error) {
	token, err := s.sealImportToken(ctx, set)
	if err != nil {
		return nil, err
	}
	var doomed []doomName
	err = s.update(ctx, func(t *recorder) error {
		now, err := t.key(key.Region, key.ID)
		if err != nil {
			return err
		}
		if now == nil {
			return notFound(key.ARN())
		}
		if err := usableExternal(r, actionGetParametersForImport, now); err != nil {
			return err
		}
		err = t.putImport(set)
		doomed = t.doomed
		return err
	})
	if err != nil {
		return nil, err
	}
	s.completeNow(ctx, key, doomed)
	return token, nil
}

// roomError is TokenError for what makes a new object on the token.
func roomError(err error) error {
	if hsm.ClassOf(err) == hsm.TokenFull {
		return &Error{Type: LimitExceeded, Message: "The HSM token has no room for another key.", Cause: err}
	}
	return TokenError(err)
}
