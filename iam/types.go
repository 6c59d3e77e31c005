package iam

import (
	"net/url"
	"strings"
	"time"
)

// Empty is the output of operations that give nothing.
type Empty struct{}

// Tag is a label of a user, role, policy or session.
type Tag struct {
	Key   string
	Value string
}

// PermissionsBoundary names the managed policy that bounds a user or role.
type PermissionsBoundary struct {
	PermissionsBoundaryType string
	PermissionsBoundaryArn  string
}

// AttachedPolicy names a managed policy.
type AttachedPolicy struct {
	PolicyName string
	PolicyArn  string
}

// User describes a user.
type User struct {
	Path                string
	UserName            string
	UserId              string
	Arn                 string
	CreateDate          time.Time
	PasswordLastUsed    time.Time
	PermissionsBoundary *PermissionsBoundary
	Tags                []Tag
}

// Role describes a role.
type Role struct {
	Path     string
	RoleName string
	RoleId   string
	Arn      string
	// AssumeRolePolicyDocument is percent-encoded, see encodeDocument.
	AssumeRolePolicyDocument string
	CreateDate               time.Time
	Description              string
	MaxSessionDuration       int32
	PermissionsBoundary      *PermissionsBoundary
	RoleLastUsed             *RoleLastUsed
	Tags                     []Tag
}

// RoleLastUsed says when a role was last used. It is never given.
type RoleLastUsed struct {
	LastUsedDate time.Time
	Region       string
}

// Policy describes a managed policy.
type Policy struct {
	PolicyName                    string
	PolicyId                      string
	Arn                           string
	Path                          string
	DefaultVersionId              string
	AttachmentCount               int32
	PermissionsBoundaryUsageCount int32
	IsAttachable                  bool
	Description                   string
	CreateDate                    time.Time
	UpdateDate                    time.Time
	Tags                          []Tag
}

// PolicyVersion describes a version of a managed policy.
type PolicyVersion struct {
	// Document is percent-encoded, see encodeDocument; it is empty in listings and for a version that was just made.
	Document         string
	VersionId        string
	IsDefaultVersion bool
	CreateDate       time.Time
}

// encodeDocument encodes a policy document for an answer: AWS gives the documents of IAM percent-encoded (RFC 3986), and
// clients expect it.
func encodeDocument(document string) string {
	return strings.ReplaceAll(url.QueryEscape(document), "+", "%20")
}

// user describes an entity that is a user.
func (e *entity) user() *User {
	return &User{
		Path: e.Path, UserName: e.Name, UserId: e.ID, Arn: e.arn(), CreateDate: e.Created,
		PermissionsBoundary: e.boundary(), Tags: e.Tags,
	}
}

// role describes an entity that is a role.
func (e *entity) role() *Role {
	return &Role{
		Path: e.Path, RoleName: e.Name, RoleId: e.ID, Arn: e.arn(), CreateDate: e.Created,
		AssumeRolePolicyDocument: encodeDocument(e.Trust), Description: e.Description, MaxSessionDuration: e.MaxSession,
		PermissionsBoundary: e.boundary(), Tags: e.Tags,
	}
}

func (e *entity) boundary() *PermissionsBoundary {
	if e.Boundary == "" {
		return nil
	}
	return &PermissionsBoundary{PermissionsBoundaryType: "Policy", PermissionsBoundaryArn: e.Boundary}
}
