package iam

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"hsmkms/policy"
	"hsmkms/store"
)

// AssumeRoleInput is the request of AssumeRole.
type AssumeRoleInput struct {
	DurationSeconds   *int32
	ExternalId        string
	Policy            string
	PolicyArns        []PolicyDescriptor
	ProvidedContexts  []ProvidedContext
	RoleArn           string
	RoleSessionName   string
	SerialNumber      string
	SourceIdentity    string
	Tags              []Tag
	TokenCode         string
	TransitiveTagKeys []string
}

// PolicyDescriptor names a managed policy that narrows a session.
type PolicyDescriptor struct {
	Arn string
}

// ProvidedContext is an assertion of an identity provider. There are none.
type ProvidedContext struct{ ContextAssertion, ProviderArn string }

// AssumeRoleOutput is the answer of AssumeRole.
type AssumeRoleOutput struct {
	AssumedRoleUser  *AssumedRoleUser
	Credentials      *Credentials
	PackedPolicySize *int32
	SourceIdentity   string
}

// AssumedRoleUser names a session of a role.
type AssumedRoleUser struct{ Arn, AssumedRoleId string }

// Wipe overwrites the secrets.
func (o *AssumeRoleOutput) Wipe() { o.Credentials.wipe() }

const (
	// longestChain is the longest session, in seconds, that a session of another role can begin.
	longestChain = 3600
	// maxSessionPolicy is the number of characters that session policies may have, inline and ARNs together.
	maxSessionPolicy = 2048
	maxSessionARNs   = 10
)

// AssumeRole begins a session of a role. The trust policy of the role must allow it to the caller, or leave it to the
// caller's account, and then so must the policies of the caller's own.
func (s *Service) AssumeRole(ctx context.Context, r *Request, in *AssumeRoleInput) (*AssumeRoleOutput, error) {
	if err := in.check(r); err != nil {
		return nil, err
	}
	r.asks = asks{externalID: in.ExternalId, sessionName: in.RoleSessionName, sourceIdentity: in.SourceIdentity, tags: in.Tags, transitive: in.TransitiveTagKeys}
	var assumed *entity
	var next session
	begin := func(reader store.Reader) (err error) {
		assumed, next, err = in.begin(reader, r)
		return err
	}
	if err := s.cfg.Store.View(ctx, begin); err != nil { // before the token is asked to seal a secret
		return nil, err
	}
	key, secret, token, err := s.newSession(ctx, assumed.Account, assumed.ID)
	if err != nil {
		return nil, err
	}
	next.Token = key.Session.Token
	next.Expires = key.Created.Add(in.duration())
	key.Session = &next
	out := in.answer(assumed, &next)
	out.Credentials = &Credentials{AccessKeyId: key.ID, Expiration: next.Expires, SecretAccessKey: secret, SessionToken: token}
	if err := s.saveSession(ctx, key); err != nil {
		out.Wipe()
		return nil, err
	}
	return out, nil
}

// check looks at the request alone.
func (in *AssumeRoleInput) check(r *Request) error {
	if err := checkMFA(in.SerialNumber, in.TokenCode); err != nil {
		return err
	}
	switch {
	case r.Caller.Type == policy.Root:
		return errorf(AccessDenied, "Roles may not be assumed by root accounts.")
	case len(in.ProvidedContexts) > 0:
		return errorf(ValidationError, "ProvidedContexts are not supported.")
	case len(in.PolicyArns) > maxSessionARNs:
		return errorf(ValidationError, "1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to %d", maxSessionARNs)
	case in.policies() > maxSessionPolicy:
		return errorf(ValidationError, "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to %d", maxSessionPolicy)
	case r.Caller.Type == policy.AssumedRole && in.duration() > longestChain*time.Second:
		return errorf(ValidationError, "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	if in.Policy == "" {
		return nil
	}
	return checkDocument(policy.IdentityPolicy, in.Policy)
}

// policies counts the characters of the session policies, inline and ARNs together.
func (in *AssumeRoleInput) policies() int {
	n := utf8.RuneCountInString(in.Policy)
	for _, p := range in.PolicyArns {
		n += len(p.Arn)
	}
	return n
}

// packed is how much of what session policies may have those of the request and its tags have, in percent; nil if it has neither.
func (in *AssumeRoleInput) packed() *int32 {
	n := in.policies()
	for _, tag := range in.Tags {
		n += utf8.RuneCountInString(tag.Key) + utf8.RuneCountInString(tag.Value)
	}
	if n == 0 {
		return nil
	}
	percent := int32(min(100, (n*100+maxSessionPolicy-1)/maxSessionPolicy))
	return &percent
}

func (in *AssumeRoleInput) duration() time.Duration {
	if in.DurationSeconds != nil {
		return time.Duration(*in.DurationSeconds) * time.Second
	}
	return usualSession * time.Second
}

// begin finds the role and decides whether the caller may begin the session, which it describes.
func (in *AssumeRoleInput) begin(reader store.Reader, r *Request) (*entity, session, error) {
	next := session{Name: in.RoleSessionName, Policy: in.Policy, SourceIdentity: in.SourceIdentity}
	if err := in.inherit(reader, r, &next); err != nil {
		return nil, next, err
	}
	r.asks.tags = next.Tags
	assumed, err := in.permitted(reader, r)
	if err != nil {
		return nil, next, err
	}
	if in.duration() > time.Duration(assumed.MaxSession)*time.Second {
		return nil, next, errorf(ValidationError, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	for _, p := range in.PolicyArns {
		m, err := byARN(reader, assumed.Account, p.Arn)
		if err != nil {
			return nil, next, err
		}
		if m == nil {
			return nil, next, errorf(MalformedPolicyDocument, "The session policy %s does not exist.", p.Arn)
		}
		next.PolicyARNs = append(next.PolicyARNs, p.Arn)
	}
	return assumed, next, nil
}

// inherit gives the session the tags of the request and what goes on from the caller's own session.
func (in *AssumeRoleInput) inherit(reader store.Reader, r *Request, next *session) (err error) {
	if next.Tags, err = newTags(nil, in.Tags); err != nil {
		return err
	}
	for _, key := range in.TransitiveTagKeys {
		if !slices.ContainsFunc(in.Tags, func(tag Tag) bool { return strings.EqualFold(tag.Key, key) }) {
			return errorf(ValidationError, "The transitive tag key %s is not among the session tags.", key)
		}
	}
	next.Transitive = slices.Clone(in.TransitiveTagKeys)
	if r.Caller.Type != policy.AssumedRole {
		return nil
	}
	own, err := read[credential](reader, keyPrefix+r.Caller.AccessKeyID)
	if err != nil {
		return fmt.Errorf("reading the session of the caller: %w", err)
	}
	if own == nil || own.Session == nil { // it has ended since the signature was verified
		return errorf(InvalidClientTokenID, "The security token included in the request is invalid.")
	}
	for _, tag := range own.Session.Tags {
		same := func(key string) bool { return strings.EqualFold(key, tag.Key) }
		if !slices.ContainsFunc(own.Session.Transitive, same) {
			continue
		}
		if slices.ContainsFunc(in.Tags, func(tag Tag) bool { return same(tag.Key) }) {
			return errorf(ValidationError, "The session tag %s cannot be set, because it is a transitive tag of the calling session.", tag.Key)
		}
		next.Tags, next.Transitive = append(next.Tags, tag), append(next.Transitive, tag.Key)
	}
	if given := own.Session.SourceIdentity; given != "" {
		if in.SourceIdentity != "" && in.SourceIdentity != given {
			return errorf(AccessDenied, "The source identity of the calling session cannot be changed.")
		}
		next.SourceIdentity, r.asks.sourceIdentity = given, given
	}
	return nil
}

// roleARN is the form of ARNs of roles: account, path and name.
var roleARN = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):role/(?:[!-.0-~]+/)*([\w+=,.@-]{1,64})$`)

// permitted finds the role if the caller may assume it, with the tags and the source identity of the request. Nobody else is
// told whether it exists.
func (in *AssumeRoleInput) permitted(reader store.Reader, r *Request) (*entity, error) {
	refused := errorf(AccessDenied, "%s", policy.Decision{}.Sentence(r.question("sts:AssumeRole", "", in.RoleArn)))
	parts := roleARN.FindStringSubmatch(in.RoleArn)
	if parts == nil {
		return nil, errorf(ValidationError, "%s is invalid", in.RoleArn)
	}
	e, err := byName(reader, role, parts[1], parts[2])
	if err != nil {
		return nil, err
	}
	if e == nil || e.arn() != in.RoleArn {
		return nil, refused
	}
	trust, err := e.trust()
	if err != nil {
		return nil, err
	}
	r.asks.resourceTags = e.Tags
	for _, action := range in.actions(r) {
		q := r.question(action, e.Account, e.arn())
		if d := policy.DecideByTrust(q, trust); !d.Allowed {
			return nil, errorf(AccessDenied, "%s", policy.Decision{}.Sentence(q))
		}
	}
	r.Roles = []string{e.arn()}
	return e, nil
}

// actions are the permissions that the request needs.
func (in *AssumeRoleInput) actions(r *Request) []string {
	needed := []string{"sts:AssumeRole"}
	if len(r.asks.tags) > 0 {
		needed = append(needed, "sts:TagSession")
	}
	if r.asks.sourceIdentity != "" {
		needed = append(needed, "sts:SetSourceIdentity")
	}
	return needed
}

// answer describes the session, without its credentials.
func (in *AssumeRoleInput) answer(e *entity, next *session) *AssumeRoleOutput {
	return &AssumeRoleOutput{
		AssumedRoleUser:  &AssumedRoleUser{Arn: sessionARN(e, next.Name), AssumedRoleId: e.ID + ":" + next.Name},
		PackedPolicySize: in.packed(), SourceIdentity: next.SourceIdentity,
	}
}
