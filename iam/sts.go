package iam

import (
	"context"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// Credentials are temporary credentials, with their secrets.
type Credentials struct {
	AccessKeyId     string
	Expiration      time.Time
	SecretAccessKey []byte
	SessionToken    []byte
}

// wipe overwrites the secrets.
func (c *Credentials) wipe() {
	if c != nil {
		clear(c.SecretAccessKey)
		clear(c.SessionToken)
	}
}

// GetCallerIdentityInput is the request of GetCallerIdentity.
type GetCallerIdentityInput struct{}

// GetCallerIdentityOutput is the answer of GetCallerIdentity.
type GetCallerIdentityOutput struct{ Account, Arn, UserId string }

// GetCallerIdentity says who the caller is. It needs no permission, and no policy can deny it.
func (s *Service) GetCallerIdentity(_ context.Context, r *Request, _ *GetCallerIdentityInput) (*GetCallerIdentityOutput, error) {
	return &GetCallerIdentityOutput{Account: r.Caller.Account, Arn: r.Caller.ARN, UserId: r.Caller.UserID}, nil
}

// GetSessionTokenInput is the request of GetSessionToken.
type GetSessionTokenInput struct {
	DurationSeconds *int32
	SerialNumber    string
	TokenCode       string
}

// GetSessionTokenOutput is the answer of GetSessionToken.
type GetSessionTokenOutput struct{ Credentials *Credentials }

// Wipe overwrites the secrets.
func (o *GetSessionTokenOutput) Wipe() { o.Credentials.wipe() }

const (
	// usualToken is how long the credentials of GetSessionToken are good for, in seconds.
	usualToken = 12 * 3600
	// longestRootToken is how long those of a root user may be.
	longestRootToken = 3600
)

// GetSessionToken gives a user or root user temporary credentials with the permissions it has. It needs no permission.
func (s *Service) GetSessionToken(ctx context.Context, r *Request, in *GetSessionTokenInput) (*GetSessionTokenOutput, error) {
	if err := checkMFA(in.SerialNumber, in.TokenCode); err != nil {
		return nil, err
	}
	if r.Caller.Type == policy.AssumedRole || isTemporary(r) {
		return nil, errorf(AccessDenied, "Cannot call GetSessionToken with session credentials")
	}
	owner := r.Caller.UserID // that of a root user is the account
	key, secret, token, err := s.newSession(ctx, r.Caller.Account, owner)
	if err != nil {
		return nil, err
	}
	seconds := int32(usualToken)
	if in.DurationSeconds != nil {
		seconds = *in.DurationSeconds
	}
	if r.Caller.Type == policy.Root {
		seconds = min(seconds, longestRootToken)
	}
	key.Session.Expires = key.Created.Add(time.Duration(seconds) * time.Second)
	out := &GetSessionTokenOutput{Credentials: &Credentials{AccessKeyId: key.ID, Expiration: key.Session.Expires, SecretAccessKey: secret, SessionToken: token}}
	if err := s.saveSession(ctx, key); err != nil {
		out.Wipe()
		return nil, err
	}
	return out, nil
}

// checkMFA refuses codes of devices for multi-factor authentication: there are none.
func checkMFA(serialNumber, code string) error {
	if serialNumber != "" || code != "" {
		return errorf(AccessDenied, "MultiFactorAuthentication failed with invalid MFA one time pass code. ")
	}
	return nil
}

func (s *Service) saveSession(ctx context.Context, key *credential) error {
	return s.update(ctx, func(t store.Txn) (string, error) { return keyPrefix + key.ID, putKey(t, key) })
}
