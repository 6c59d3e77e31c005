package iam

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"hsmkms/policy"
	"hsmkms/store"
)

// Quotas of managed policies.
const (
	maxManaged  = 6144 // characters without white space
	maxVersions = 5
)

// CreatePolicyInput is the request of CreatePolicy.
type CreatePolicyInput struct {
	Description    string
	Path           string
	PolicyDocument string
	PolicyName     string
	Tags           []Tag
}

// CreatePolicyOutput is the answer of CreatePolicy.
type CreatePolicyOutput struct{ Policy *Policy }

// CreatePolicy makes a managed policy.
func (s *Service) CreatePolicy(ctx context.Context, r *Request, in *CreatePolicyInput) (*CreatePolicyOutput, error) {
	m := &managed{
		Account: r.Caller.Account, Path: in.Path, Name: in.PolicyName, Created: s.now(), Description: in.Description,
		Default: 1, Latest: 1,
	}
	m.Updated = m.Created
	m.Versions = []version{{Number: 1, Document: in.PolicyDocument, Created: m.Created}}
	if m.Path == "" {
		m.Path = "/"
	}
	if err := mayCreatePolicy(r, m.arn(), in.Tags); err != nil {
		return nil, err
	}
	err := checkManaged(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	if m.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	if m.ID, err = s.newID(policyIDs, 17); err != nil {
		return nil, err
	}
	err = s.update(ctx, func(t store.Txn) (string, error) {
		_, found, err := t.Get(m.record())
		if err == nil && found {
			err = errorf(EntityAlreadyExists, "A policy called %s already exists. Duplicate names are not allowed.", m.Name)
		}
		if err != nil {
			return "", err
		}
		return m.record(), put(t, m.record(), m)
	})
	return &CreatePolicyOutput{Policy: m.describe(0, 0)}, err
}

func mayCreatePolicy(r *Request, arn string, tags []Tag) error {
	r.asks.tags = tags
	err := permitOperation(r, arn)
	if err == nil && len(tags) > 0 {
		err = permit(r, "iam:TagPolicy", arn)
	}
	return err
}

func checkManaged(document string) error {
	if size(document) > maxManaged {
		return errorf(LimitExceeded, "Cannot exceed quota for PolicySize: %d", maxManaged)
	}
	return checkDocument(policy.ManagedPolicy, document)
}

// describe describes a policy that some entities have among their policies, and others for their boundary.
func (m *managed) describe(attached, bounded int) *Policy {
	return &Policy{
		PolicyName: m.Name, PolicyId: m.ID, Arn: m.arn(), Path: m.Path, DefaultVersionId: versionID(m.Default),
		AttachmentCount: int32(attached), PermissionsBoundaryUsageCount: int32(bounded), IsAttachable: true,
		Description: m.Description, CreateDate: m.Created, UpdateDate: m.Updated, Tags: m.Tags,
	}
}

// count describes a policy with the number of entities that have it.
func (m *managed) count(r store.Reader) (*Policy, error) {
	attached, err := names(r, attachedPrefix+m.ID+"/")
	if err != nil {
		return nil, err
	}
	bounded, err := names(r, boundedPrefix+m.ID+"/")
	return m.describe(len(attached), len(bounded)), err
}

func versionID(number int) string { return "v" + strconv.Itoa(number) }

// versionNamed gives the version with an id such as v3; nil if there is none.
func (m *managed) versionNamed(id string) *version {
	for i := range m.Versions {
		if versionID(m.Versions[i].Number) == id {
			return &m.Versions[i]
		}
	}
	return nil
}

func noPolicy(arn string) error {
	return errorf(NoSuchEntity, "Policy %s was not found.", arn)
}

func noVersion(arn, id string) error {
	return errorf(NoSuchEntity, "Policy %s version %s does not exist or is not attachable.", arn, id)
}

// openPolicy finds a managed policy that the caller may do the operation with.
func openPolicy(reader store.Reader, r *Request, arn string) (*managed, error) {
	m, err := byARN(reader, r.Caller.Account, arn)
	if err != nil {
		return nil, err
	}
	asked := *r
	if m != nil {
		asked.asks.resourceTags = m.Tags
	}
	if err := permitOperation(&asked, arn); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, noPolicy(arn)
	}
	return m, nil
}

// viewPolicy is view for a managed policy.
func (s *Service) viewPolicy(ctx context.Context, r *Request, arn string, fn func(store.Reader, *managed) error) error {
	return s.cfg.Store.View(ctx, func(reader store.Reader) error {
		m, err := openPolicy(reader, r, arn)
		if err != nil {
			return err
		}
		return fn(reader, m)
	})
}

// changePolicy is change for a managed policy.
func (s *Service) changePolicy(ctx context.Context, r *Request, arn string, fn func(*managed) error) error {
	return s.update(ctx, func(t store.Txn) (string, error) {
		m, err := openPolicy(t, r, arn)
		if err != nil {
			return "", err
		}
		if err := fn(m); err != nil {
			return "", err
		}
		return m.record(), put(t, m.record(), m)
	})
}

// GetPolicyInput is the request of GetPolicy.
type GetPolicyInput struct{ PolicyArn string }

// GetPolicyOutput is the answer of GetPolicy.
type GetPolicyOutput struct{ Policy *Policy }

// GetPolicy describes a managed policy.
func (s *Service) GetPolicy(ctx context.Context, r *Request, in *GetPolicyInput) (*GetPolicyOutput, error) {
	out := &GetPolicyOutput{}
	return out, s.viewPolicy(ctx, r, in.PolicyArn, func(reader store.Reader, m *managed) (err error) {
		out.Policy, err = m.count(reader)
		return err
	})
}

// ListPoliciesInput is the request of ListPolicies.
type ListPoliciesInput struct {
	Marker            string
	MaxItems          *int32
	OnlyAttached      bool
	PathPrefix        string
	PolicyUsageFilter string
	Scope             string
}

// ListPoliciesOutput is the answer of ListPolicies.
type ListPoliciesOutput struct {
	IsTruncated bool
	Marker      string
	Policies    []Policy
}

// ListPolicies lists the managed policies of the account. There are none of AWS.
func (s *Service) ListPolicies(ctx context.Context, r *Request, in *ListPoliciesInput) (*ListPoliciesOutput, error) {
	if err := permitOperation(r, policyARN(r.Caller.Account, "/", "")); err != nil {
		return nil, err
	}
	p, err := newPage(strings.Join([]string{r.Operation, in.Scope, in.PathPrefix, in.PolicyUsageFilter, strconv.FormatBool(in.OnlyAttached)}, " "), in.Marker, in.MaxItems)
	out := &ListPoliciesOutput{}
	if err != nil || in.Scope == "AWS" {
		return out, err
	}
	prefix := policyRecords(r.Caller.Account)
	err = s.cfg.Store.View(ctx, func(reader store.Reader) error {
		out.Policies, err = scan(reader, p, prefix, func(name string, _ []byte) (*Policy, error) {
			m, err := read[managed](reader, prefix+name)
			if err != nil {
				return nil, err
			}
			listed, err := m.count(reader)
			if err != nil || !in.wants(listed) {
				return nil, err
			}
			listed.Description, listed.Tags = "", nil // listings leave them out
			return listed, nil
		})
		return err
	})
	out.Marker, out.IsTruncated = p.next, p.next != ""
	return out, err
}

// wants tells whether a policy is to be listed.
func (in *ListPoliciesInput) wants(p *Policy) bool {
	used := p.AttachmentCount+p.PermissionsBoundaryUsageCount > 0
	switch in.PolicyUsageFilter {
	case "PermissionsPolicy":
		used = p.AttachmentCount > 0
	case "PermissionsBoundary":
		used = p.PermissionsBoundaryUsageCount > 0
	}
	return strings.HasPrefix(p.Path, in.PathPrefix) && (used || !in.OnlyAttached && in.PolicyUsageFilter == "")
}

// DeletePolicyInput is the request of DeletePolicy.
type DeletePolicyInput struct{ PolicyArn string }

// DeletePolicy deletes a managed policy that nobody has, and that has one version.
func (s *Service) DeletePolicy(ctx context.Context, r *Request, in *DeletePolicyInput) (*Empty, error) {
	return &Empty{}, s.update(ctx, func(t store.Txn) (string, error) {
		m, err := openPolicy(t, r, in.PolicyArn)
		if err != nil {
			return "", err
		}
		described, err := m.count(t)
		switch {
		case err != nil:
			return "", err
		case described.AttachmentCount+described.PermissionsBoundaryUsageCount > 0:
			return "", errorf(DeleteConflict, "Cannot delete a policy attached to entities.")
		case len(m.Versions) > 1:
			return "", errorf(DeleteConflict, "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
		}
		return m.record(), t.Delete(m.record())
	})
}

// CreatePolicyVersionInput is the request of CreatePolicyVersion.
type CreatePolicyVersionInput struct {
	PolicyArn      string
	PolicyDocument string
	SetAsDefault   bool
}

// CreatePolicyVersionOutput is the answer of CreatePolicyVersion.
type CreatePolicyVersionOutput struct{ PolicyVersion *PolicyVersion }

// CreatePolicyVersion adds a version to a managed policy. It is in force if it is to be the default.
func (s *Service) CreatePolicyVersion(ctx context.Context, r *Request, in *CreatePolicyVersionInput) (*CreatePolicyVersionOutput, error) {
	out := &CreatePolicyVersionOutput{}
	return out, s.changePolicy(ctx, r, in.PolicyArn, func(m *managed) error {
		if err := checkManaged(in.PolicyDocument); err != nil {
			return err
		}
		if len(m.Versions) == maxVersions {
			return errorf(LimitExceeded, "A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
		}
		m.Latest++
		m.Updated = s.now()
		v := version{Number: m.Latest, Document: in.PolicyDocument, Created: m.Updated}
		m.Versions = append(m.Versions, v)
		if in.SetAsDefault {
			m.Default = v.Number
		}
		out.PolicyVersion = m.describeVersion(&v)
		return nil
	})
}

// describeVersion describes a version without its document.
func (m *managed) describeVersion(v *version) *PolicyVersion {
	return &PolicyVersion{VersionId: versionID(v.Number), IsDefaultVersion: v.Number == m.Default, CreateDate: v.Created}
}

// GetPolicyVersionInput is the request of GetPolicyVersion.
type GetPolicyVersionInput struct{ PolicyArn, VersionId string }

// GetPolicyVersionOutput is the answer of GetPolicyVersion.
type GetPolicyVersionOutput struct{ PolicyVersion *PolicyVersion }

// GetPolicyVersion gives a version of a managed policy with its document.
func (s *Service) GetPolicyVersion(ctx context.Context, r *Request, in *GetPolicyVersionInput) (*GetPolicyVersionOutput, error) {
	out := &GetPolicyVersionOutput{}
	return out, s.viewPolicy(ctx, r, in.PolicyArn, func(_ store.Reader, m *managed) error {
		v := m.versionNamed(in.VersionId)
		if v == nil {
			return noVersion(in.PolicyArn, in.VersionId)
		}
		out.PolicyVersion = m.describeVersion(v)
		out.PolicyVersion.Document = encodeDocument(v.Document)
		return nil
	})
}

// ListPolicyVersionsInput is the request of ListPolicyVersions.
type ListPolicyVersionsInput struct {
	Marker    string
	MaxItems  *int32
	PolicyArn string
}

// ListPolicyVersionsOutput is the answer of ListPolicyVersions.
type ListPolicyVersionsOutput struct {
	IsTruncated bool
	Marker      string
	Versions    []PolicyVersion
}

// ListPolicyVersions lists the versions of a managed policy, the latest first.
func (s *Service) ListPolicyVersions(ctx context.Context, r *Request, in *ListPolicyVersionsInput) (*ListPolicyVersionsOutput, error) {
	out := &ListPolicyVersionsOutput{}
	return out, s.viewPolicy(ctx, r, in.PolicyArn, func(_ store.Reader, m *managed) error {
		p, err := newPage(r.Operation+" "+in.PolicyArn, in.Marker, in.MaxItems)
		if err != nil {
			return err
		}
		slices.Reverse(m.Versions)
		// Numbers fall and names must rise, so the names of this listing count from the other end.
		name := func(v version) string { return strconv.FormatInt(1<<40-int64(v.Number), 10) }
		for _, v := range cut(p, m.Versions, name) {
			out.Versions = append(out.Versions, *m.describeVersion(&v))
		}
		out.Marker, out.IsTruncated = p.next, p.next != ""
		return nil
	})
}

// SetDefaultPolicyVersionInput is the request of SetDefaultPolicyVersion.
type SetDefaultPolicyVersionInput struct{ PolicyArn, VersionId string }

// SetDefaultPolicyVersion chooses the version of a managed policy that is in force.
func (s *Service) SetDefaultPolicyVersion(ctx context.Context, r *Request, in *SetDefaultPolicyVersionInput) (*Empty, error) {
	return &Empty{}, s.changePolicy(ctx, r, in.PolicyArn, func(m *managed) error {
		v := m.versionNamed(in.VersionId)
		if v == nil {
			return noVersion(in.PolicyArn, in.VersionId)
		}
		m.Default, m.Updated = v.Number, s.now()
		return nil
	})
}

// DeletePolicyVersionInput is the request of DeletePolicyVersion.
type DeletePolicyVersionInput struct{ PolicyArn, VersionId string }

// DeletePolicyVersion takes a version from a managed policy, but not the default.
func (s *Service) DeletePolicyVersion(ctx context.Context, r *Request, in *DeletePolicyVersionInput) (*Empty, error) {
	return &Empty{}, s.changePolicy(ctx, r, in.PolicyArn, func(m *managed) error {
		v := m.versionNamed(in.VersionId)
		switch {
		case v == nil:
			return noVersion(in.PolicyArn, in.VersionId)
		case v.Number == m.Default:
			return errorf(DeleteConflict, "Cannot delete the default version of a policy.")
		}
		number := v.Number
		m.Versions = slices.DeleteFunc(m.Versions, func(v version) bool { return v.Number == number })
		return nil
	})
}
