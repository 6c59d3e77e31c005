package iam

import (
	"context"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// Users have no groups here, no passwords, devices, keys for SSH or certificates, and roles no instance profiles. Clients ask
// for all of that before they delete a user or a role, and are told that there is none.

// nothingOf is the answer of a listing that is empty for every user and role there is.
func (s *Service) nothingOf(ctx context.Context, r *Request, k kind, name, marker string, maxItems *int32) error {
	return s.view(ctx, r, k, name, func(store.Reader, *entity) error {
		_, err := newPage(r.Operation+" "+name, marker, maxItems)
		return err
	})
}

// nothingOfUser is nothingOf for listings that are about the caller if the request names no user.
func (s *Service) nothingOfUser(ctx context.Context, r *Request, name, marker string, maxItems *int32) error {
	if name == "" && r.Caller.Type == policy.Root {
		return s.nothingAtAll(r, rootARN(r.Caller.Account), marker, maxItems)
	}
	name, err := userName(r, name)
	if err != nil {
		return err
	}
	return s.nothingOf(ctx, r, user, name, marker, maxItems)
}

// nothingAtAll is the answer of a listing for the whole account, for who may have it.
func (s *Service) nothingAtAll(r *Request, arn, marker string, maxItems *int32) error {
	if err := permitOperation(r, arn); err != nil {
		return err
	}
	_, err := newPage(r.Operation, marker, maxItems)
	return err
}

// ListGroupsForUserInput is the request of ListGroupsForUser.
type ListGroupsForUserInput struct {
	Marker   string
	MaxItems *int32
	UserName string
}

// ListGroupsForUserOutput is the answer of ListGroupsForUser.
type ListGroupsForUserOutput struct {
	Groups      []Group
	IsTruncated bool
	Marker      string
}

// Group describes a group. There are none.
type Group struct {
	Path, GroupName, GroupId, Arn string
	CreateDate                    time.Time
}

// ListGroupsForUser says that a user is in no group.
func (s *Service) ListGroupsForUser(ctx context.Context, r *Request, in *ListGroupsForUserInput) (*ListGroupsForUserOutput, error) {
	return &ListGroupsForUserOutput{}, s.nothingOf(ctx, r, user, in.UserName, in.Marker, in.MaxItems)
}

// ListInstanceProfilesForRoleInput is the request of ListInstanceProfilesForRole.
type ListInstanceProfilesForRoleInput struct {
	Marker   string
	MaxItems *int32
	RoleName string
}

// ListInstanceProfilesForRoleOutput is the answer of ListInstanceProfilesForRole.
type ListInstanceProfilesForRoleOutput struct {
	InstanceProfiles []InstanceProfile
	IsTruncated      bool
	Marker           string
}

// InstanceProfile describes an instance profile. There are none.
type InstanceProfile struct {
	Path, InstanceProfileName, InstanceProfileId, Arn string
	CreateDate                                        time.Time
	Roles                                             []Role
	Tags                                              []Tag
}

// ListInstanceProfilesForRole says that a role is in no instance profile.
func (s *Service) ListInstanceProfilesForRole(ctx context.Context, r *Request, in *ListInstanceProfilesForRoleInput) (*ListInstanceProfilesForRoleOutput, error) {
	return &ListInstanceProfilesForRoleOutput{}, s.nothingOf(ctx, r, role, in.RoleName, in.Marker, in.MaxItems)
}

// ListMFADevicesInput is the request of ListMFADevices.
type ListMFADevicesInput struct {
	Marker   string
	MaxItems *int32
	UserName string
}

// ListMFADevicesOutput is the answer of ListMFADevices.
type ListMFADevicesOutput struct {
	IsTruncated bool
	MFADevices  []MFADevice
	Marker      string
}

// MFADevice describes a device of a user. There are none.
type MFADevice struct {
	UserName, SerialNumber string
	EnableDate             time.Time
}

// ListMFADevices says that a user, or the caller, has no devices.
func (s *Service) ListMFADevices(ctx context.Context, r *Request, in *ListMFADevicesInput) (*ListMFADevicesOutput, error) {
	return &ListMFADevicesOutput{}, s.nothingOfUser(ctx, r, in.UserName, in.Marker, in.MaxItems)
}

// ListVirtualMFADevicesInput is the request of ListVirtualMFADevices.
type ListVirtualMFADevicesInput struct {
	AssignmentStatus string
	Marker           string
	MaxItems         *int32
}

// ListVirtualMFADevicesOutput is the answer of ListVirtualMFADevices.
type ListVirtualMFADevicesOutput struct {
	IsTruncated       bool
	Marker            string
	VirtualMFADevices []VirtualMFADevice
}

// VirtualMFADevice describes a virtual device. There are none.
type VirtualMFADevice struct {
	SerialNumber                string
	Base32StringSeed, QRCodePNG []byte
	User                        *User
	EnableDate                  time.Time
	Tags                        []Tag
}

// ListVirtualMFADevices says that the account has no virtual devices.
func (s *Service) ListVirtualMFADevices(_ context.Context, r *Request, in *ListVirtualMFADevicesInput) (*ListVirtualMFADevicesOutput, error) {
	return &ListVirtualMFADevicesOutput{}, s.nothingAtAll(r, "arn:aws:iam::"+r.Caller.Account+":mfa/", in.Marker, in.MaxItems)
}

// ListSSHPublicKeysInput is the request of ListSSHPublicKeys.
type ListSSHPublicKeysInput struct {
	Marker   string
	MaxItems *int32
	UserName string
}

// ListSSHPublicKeysOutput is the answer of ListSSHPublicKeys.
type ListSSHPublicKeysOutput struct {
	IsTruncated   bool
	Marker        string
	SSHPublicKeys []SSHPublicKeyMetadata
}

// SSHPublicKeyMetadata describes a key for SSH. There are none.
type SSHPublicKeyMetadata struct {
	UserName, SSHPublicKeyId, Status string
	UploadDate                       time.Time
}

// ListSSHPublicKeys says that a user, or the caller, has no keys for SSH.
func (s *Service) ListSSHPublicKeys(ctx context.Context, r *Request, in *ListSSHPublicKeysInput) (*ListSSHPublicKeysOutput, error) {
	return &ListSSHPublicKeysOutput{}, s.nothingOfUser(ctx, r, in.UserName, in.Marker, in.MaxItems)
}

// ListSigningCertificatesInput is the request of ListSigningCertificates.
type ListSigningCertificatesInput struct {
	Marker   string
	MaxItems *int32
	UserName string
}

// ListSigningCertificatesOutput is the answer of ListSigningCertificates.
type ListSigningCertificatesOutput struct {
	Certificates []SigningCertificate
	IsTruncated  bool
	Marker       string
}

// SigningCertificate describes a certificate of a user. There are none.
type SigningCertificate struct {
	UserName, CertificateId, CertificateBody, Status string
	UploadDate                                       time.Time
}

// ListSigningCertificates says that a user, or the caller, has no certificates.
func (s *Service) ListSigningCertificates(ctx context.Context, r *Request, in *ListSigningCertificatesInput) (*ListSigningCertificatesOutput, error) {
	return &ListSigningCertificatesOutput{}, s.nothingOfUser(ctx, r, in.UserName, in.Marker, in.MaxItems)
}

// ListServiceSpecificCredentialsInput is the request of ListServiceSpecificCredentials.
type ListServiceSpecificCredentialsInput struct {
	AllUsers    bool
	Marker      string
	MaxItems    *int32
	ServiceName string
	UserName    string
}

// ListServiceSpecificCredentialsOutput is the answer of ListServiceSpecificCredentials.
type ListServiceSpecificCredentialsOutput struct {
	IsTruncated                bool
	Marker                     string
	ServiceSpecificCredentials []ServiceSpecificCredentialMetadata
}

// ServiceSpecificCredentialMetadata describes credentials for one service. There are none.
type ServiceSpecificCredentialMetadata struct {
	UserName, Status, ServiceUserName, ServiceCredentialAlias string
	CreateDate, ExpirationDate                                time.Time
	ServiceSpecificCredentialId, ServiceName                  string
}

// ListServiceSpecificCredentials says that a user, the caller or all users have no credentials for single services.
func (s *Service) ListServiceSpecificCredentials(ctx context.Context, r *Request, in *ListServiceSpecificCredentialsInput) (*ListServiceSpecificCredentialsOutput, error) {
	out := &ListServiceSpecificCredentialsOutput{}
	switch {
	case in.AllUsers && in.UserName != "":
		return out, errorf(ValidationError, "AllUsers cannot be specified together with UserName.")
	case in.AllUsers:
		return out, s.nothingAtAll(r, user.arn(r.Caller.Account, "/", ""), in.Marker, in.MaxItems)
	}
	return out, s.nothingOfUser(ctx, r, in.UserName, in.Marker, in.MaxItems)
}

// GetLoginProfileInput is the request of GetLoginProfile.
type GetLoginProfileInput struct{ UserName string }

// GetLoginProfileOutput is the answer of GetLoginProfile. It is never given.
type GetLoginProfileOutput struct{ LoginProfile *LoginProfile }

// LoginProfile describes the password of a user. There are none.
type LoginProfile struct {
	UserName              string
	CreateDate            time.Time
	PasswordResetRequired bool
}

// GetLoginProfile says that a user, or the caller, has no password.
func (s *Service) GetLoginProfile(ctx context.Context, r *Request, in *GetLoginProfileInput) (*GetLoginProfileOutput, error) {
	return nil, s.noLoginProfile(ctx, r, in.UserName)
}

// DeleteLoginProfileInput is the request of DeleteLoginProfile.
type DeleteLoginProfileInput struct{ UserName string }

// DeleteLoginProfile says that a user, or the caller, has no password.
func (s *Service) DeleteLoginProfile(ctx context.Context, r *Request, in *DeleteLoginProfileInput) (*Empty, error) {
	return nil, s.noLoginProfile(ctx, r, in.UserName)
}

func (s *Service) noLoginProfile(ctx context.Context, r *Request, name string) error {
	name, err := userName(r, name)
	if err != nil {
		return err
	}
	return s.view(ctx, r, user, name, func(store.Reader, *entity) error {
		return errorf(NoSuchEntity, "Login Profile for User %s cannot be found.", name)
	})
}
