package kms

import (
	"context"
	"errors"

	"hsmkms/policy"
)

const (
	// policyName is the name of a key's only policy.
	policyName = "default"
	// maxPolicy is how many bytes a key policy may have at AWS. The model's own bound is higher.
	maxPolicy = 32768
)

// GetKeyPolicyInput is the input of GetKeyPolicy.
type GetKeyPolicyInput struct {
	KeyId      string
	PolicyName string
}

// GetKeyPolicyOutput is the output of GetKeyPolicy.
type GetKeyPolicyOutput struct {
	Policy     string `json:",omitempty"`
	PolicyName string `json:",omitempty"`
}

// PutKeyPolicyInput is the input of PutKeyPolicy.
type PutKeyPolicyInput struct {
	BypassPolicyLockoutSafetyCheck bool
	KeyId                          string
	Policy                         string
	PolicyName                     string
}

// ListKeyPoliciesInput is the input of ListKeyPolicies.
type ListKeyPoliciesInput struct {
	KeyId  string
	Limit  *int32
	Marker string
}

// ListKeyPoliciesOutput is the output of ListKeyPolicies.
type ListKeyPoliciesOutput struct {
	NextMarker  string `json:",omitempty"` // never set: there is one policy
	PolicyNames []string
	Truncated   bool
}

// GetKeyPolicy gives a key's policy, character for character as it was put but for principals who are gone or have another name.
func (s *Service) GetKeyPolicy(ctx context.Context, r *Request, in *GetKeyPolicyInput) (*GetKeyPolicyOutput, error) {
	key, err := s.inspect(ctx, r, actionGetKeyPolicy, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(in.PolicyName); err != nil {
		return nil, err
	}
	text, err := s.shownPolicy(ctx, key)
	if err != nil {
		return nil, err
	}
	return &GetKeyPolicyOutput{Policy: text, PolicyName: policyName}, nil
}

// PutKeyPolicy puts a policy in the place of a key's. It refuses one that would keep the caller from putting the next,
// unless told to bypass that check.
func (s *Service) PutKeyPolicy(ctx context.Context, r *Request, in *PutKeyPolicyInput) (*Empty, error) {
	key, err := s.authorize(ctx, r, actionPutKeyPolicy, in.KeyId, bypassAsked(in.BypassPolicyLockoutSafetyCheck))
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(in.PolicyName); err != nil {
		return nil, err
	}
	// Before the transaction, in which others wait: whoever loses his name meanwhile could as well have lost it just after.
	ids, err := s.checkPolicy(ctx, r, key, in.Policy, in.BypassPolicyLockoutSafetyCheck)
	if err != nil {
		return nil, err
	}
	return empty(s.change(ctx, key, func(now *Key) error {
		if err := usable(r, actionPutKeyPolicy, now); err != nil {
			return err
		}
		now.setPolicy(in.Policy, ids)
		return nil
	}))
}

// ListKeyPolicies lists the names of a key's policies: there is one.
func (s *Service) ListKeyPolicies(ctx context.Context, r *Request, in *ListKeyPoliciesInput) (*ListKeyPoliciesOutput, error) {
	if _, err := s.inspect(ctx, r, actionListKeyPolicies, in.KeyId); err != nil {
		return nil, err
	}
	if in.Marker != "" { // none was ever given out
		return nil, invalidMarker()
	}
	return &ListKeyPoliciesOutput{PolicyNames: []string{policyName}}, nil
}

// inspect gives a key to an operation that only reads, if the key's state allows the action.
func (s *Service) inspect(ctx context.Context, r *Request, a action, keyID string) (*Key, error) {
	key, err := s.authorize(ctx, r, a, keyID, asked{})
	if err != nil {
		return nil, err
	}
	return key, usable(r, a, key)
}

// bypassAsked is asked for an operation that puts a policy.
func bypassAsked(bypass bool) asked {
	return asked{values: []given{{policy.KeyBypassPolicyLockoutSafetyCheck, policy.Flag(bypass)}}}
}

func checkPolicyName(name string) error {
	if name != "" && name != policyName {
		return Errorf(NotFound, "No such policy exists")
	}
	return nil
}

// checkPolicy checks that a text can be the policy of a key, and unless told to bypass that check, that the caller could then
// put another. It gives the bindings of the principals in it, who must exist: the caller must be allowed to put a policy, so
// that nobody else learns whether they do.
func (s *Service) checkPolicy(ctx context.Context, r *Request, key *Key, text string, bypass bool) (policy.Bindings, error) {
	if len(text) > maxPolicy {
		return nil, Errorf(LimitExceeded, "The key policy has %d bytes; the maximum is %d.", len(text), maxPolicy)
	}
	compiled, err := policy.Load(policy.KeyPolicy, text)
	var malformed policy.MalformedError
	switch {
	case errors.As(err, &malformed):
		return nil, Errorf(MalformedPolicyDocument, "%s", malformed)
	case err != nil:
		return nil, err
	}
	compiled, ids, err := s.bind(ctx, compiled)
	if err == nil && !bypass {
		err = s.checkLockOut(ctx, r, key, compiled)
	}
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// checkLockOut checks that the caller could put another policy under a new one: as far as can be known of a request to come, and
// if it came as this one does.
func (s *Service) checkLockOut(ctx context.Context, r *Request, key *Key, compiled *policy.Policy) error {
	asked := bypassAsked(false)
	c := &circumstances{ctx: ctx, s: s, r: r, key: key, asked: &asked}
	next := c.decide(actionPutKeyPolicy)
	denied := policy.DecideByKeyPolicy(next, compiled, nil).Reason == policy.ResourceDenies
	if c.failure != nil {
		return c.failure
	}
	if denied || !compiled.KeepsControl(next) {
		return Errorf(MalformedPolicyDocument, "The new key policy will not allow you to update the key policy in the future.")
	}
	return nil
}

// defaultPolicy is the key policy that AWS gives a key when none was asked for.
func defaultPolicy(account string) string {
	return `{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "arn:aws:iam::` + account + `:root"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}`
}
