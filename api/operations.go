package api

import (
	"context"
	"fmt"
	"reflect"

	"hsmkms/iam"
	"hsmkms/kms"
)

// endpoint is an operation as the wire sees it.
type endpoint struct {
	inputType, outputType reflect.Type
	decoder               *decoder
	// output is for writing XML.
	output *node
	// call reads the request, runs the operation and gives its output. What held plaintext of the input is wiped.
	call func(ctx context.Context, cfg *Config, x *exchange, d *decoder) (any, error)
}

// service is an AWS API that is served here.
type service struct {
	// name is the service's name in the scope of credentials.
	name      string
	model     *model
	endpoints map[string]endpoint
}

// newService makes a service of a published model and the operations that have a method.
func newService(name, published string, methods map[string]endpoint) (*service, error) {
	m, err := parseModel(published)
	if err != nil {
		return nil, fmt.Errorf("loading the model of %s: %w", name, err)
	}
	all, err := endpoints(m, methods)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &service{name: name, model: m, endpoints: all}, nil
}

// served are the operations of KMS that have a method. The others of the model answer UnsupportedOperationException.
var served = map[string]endpoint{
	"CancelKeyDeletion":                   serve((*kms.Service).CancelKeyDeletion),
	"CreateAlias":                         serve((*kms.Service).CreateAlias),
	"CreateGrant":                         serve((*kms.Service).CreateGrant),
	"CreateKey":                           serve((*kms.Service).CreateKey),
	"Decrypt":                             serve((*kms.Service).Decrypt),
	"DeleteAlias":                         serve((*kms.Service).DeleteAlias),
	"DeleteImportedKeyMaterial":           serve((*kms.Service).DeleteImportedKeyMaterial),
	"DeriveSharedSecret":                  serve((*kms.Service).DeriveSharedSecret),
	"DescribeKey":                         serve((*kms.Service).DescribeKey),
	"DisableKey":                          serve((*kms.Service).DisableKey),
	"DisableKeyRotation":                  serve((*kms.Service).DisableKeyRotation),
	"EnableKey":                           serve((*kms.Service).EnableKey),
	"EnableKeyRotation":                   serve((*kms.Service).EnableKeyRotation),
	"Encrypt":                             serve((*kms.Service).Encrypt),
	"GenerateDataKey":                     serve((*kms.Service).GenerateDataKey),
	"GenerateDataKeyPair":                 serve((*kms.Service).GenerateDataKeyPair),
	"GenerateDataKeyPairWithoutPlaintext": serve((*kms.Service).GenerateDataKeyPairWithoutPlaintext),
	"GenerateDataKeyWithoutPlaintext":     serve((*kms.Service).GenerateDataKeyWithoutPlaintext),
	"GenerateMac":                         serve((*kms.Service).GenerateMac),
	"GenerateRandom":                      serve((*kms.Service).GenerateRandom),
	"GetKeyLastUsage":                     serve((*kms.Service).GetKeyLastUsage),
	"GetKeyPolicy":                        serve((*kms.Service).GetKeyPolicy),
	"GetKeyRotationStatus":                serve((*kms.Service).GetKeyRotationStatus),
	"GetParametersForImport":              serve((*kms.Service).GetParametersForImport),
	"GetPublicKey":                        serve((*kms.Service).GetPublicKey),
	"ImportKeyMaterial":                   serve((*kms.Service).ImportKeyMaterial),
	"ListAliases":                         serve((*kms.Service).ListAliases),
	"ListGrants":                          serve((*kms.Service).ListGrants),
	"ListKeyPolicies":                     serve((*kms.Service).ListKeyPolicies),
	"ListKeyRotations":                    serve((*kms.Service).ListKeyRotations),
	"ListKeys":                            serve((*kms.Service).ListKeys),
	"ListResourceTags":                    serve((*kms.Service).ListResourceTags),
	"ListRetirableGrants":                 serve((*kms.Service).ListRetirableGrants),
	"PutKeyPolicy":                        serve((*kms.Service).PutKeyPolicy),
	"ReEncrypt":                           serve((*kms.Service).ReEncrypt),
	"RetireGrant":                         serve((*kms.Service).RetireGrant),
	"RevokeGrant":                         serve((*kms.Service).RevokeGrant),
	"RotateKeyOnDemand":                   serve((*kms.Service).RotateKeyOnDemand),
	"ScheduleKeyDeletion":                 serve((*kms.Service).ScheduleKeyDeletion),
	"Sign":                                serve((*kms.Service).Sign),
	"TagResource":                         serve((*kms.Service).TagResource),
	"UntagResource":                       serve((*kms.Service).UntagResource),
	"UpdateAlias":                         serve((*kms.Service).UpdateAlias),
	"UpdateKeyDescription":                serve((*kms.Service).UpdateKeyDescription),
	"Verify":                              serve((*kms.Service).Verify),
	"VerifyMac":                           serve((*kms.Service).VerifyMac),
}

// servedIAM are the operations of IAM.
var servedIAM = map[string]endpoint{
	"AttachRolePolicy":               serveIAM((*iam.Service).AttachRolePolicy),
	"AttachUserPolicy":               serveIAM((*iam.Service).AttachUserPolicy),
	"CreateAccessKey":                serveIAM((*iam.Service).CreateAccessKey),
	"CreatePolicy":                   serveIAM((*iam.Service).CreatePolicy),
	"CreatePolicyVersion":            serveIAM((*iam.Service).CreatePolicyVersion),
	"CreateRole":                     serveIAM((*iam.Service).CreateRole),
	"CreateUser":                     serveIAM((*iam.Service).CreateUser),
	"DeleteAccessKey":                serveIAM((*iam.Service).DeleteAccessKey),
	"DeleteLoginProfile":             serveIAM((*iam.Service).DeleteLoginProfile),
	"DeletePolicy":                   serveIAM((*iam.Service).DeletePolicy),
	"DeletePolicyVersion":            serveIAM((*iam.Service).DeletePolicyVersion),
	"DeleteRole":                     serveIAM((*iam.Service).DeleteRole),
	"DeleteRolePermissionsBoundary":  serveIAM((*iam.Service).DeleteRolePermissionsBoundary),
	"DeleteRolePolicy":               serveIAM((*iam.Service).DeleteRolePolicy),
	"DeleteUser":                     serveIAM((*iam.Service).DeleteUser),
	"DeleteUserPermissionsBoundary":  serveIAM((*iam.Service).DeleteUserPermissionsBoundary),
	"DeleteUserPolicy":               serveIAM((*iam.Service).DeleteUserPolicy),
	"DetachRolePolicy":               serveIAM((*iam.Service).DetachRolePolicy),
	"DetachUserPolicy":               serveIAM((*iam.Service).DetachUserPolicy),
	"GetAccessKeyLastUsed":           serveIAM((*iam.Service).GetAccessKeyLastUsed),
	"GetLoginProfile":                serveIAM((*iam.Service).GetLoginProfile),
	"GetPolicy":                      serveIAM((*iam.Service).GetPolicy),
	"GetPolicyVersion":               serveIAM((*iam.Service).GetPolicyVersion),
	"GetRole":                        serveIAM((*iam.Service).GetRole),
	"GetRolePolicy":                  serveIAM((*iam.Service).GetRolePolicy),
	"GetUser":                        serveIAM((*iam.Service).GetUser),
	"GetUserPolicy":                  serveIAM((*iam.Service).GetUserPolicy),
	"ListAccessKeys":                 serveIAM((*iam.Service).ListAccessKeys),
	"ListAttachedRolePolicies":       serveIAM((*iam.Service).ListAttachedRolePolicies),
	"ListAttachedUserPolicies":       serveIAM((*iam.Service).ListAttachedUserPolicies),
	"ListEntitiesForPolicy":          serveIAM((*iam.Service).ListEntitiesForPolicy),
	"ListGroupsForUser":              serveIAM((*iam.Service).ListGroupsForUser),
	"ListInstanceProfilesForRole":    serveIAM((*iam.Service).ListInstanceProfilesForRole),
	"ListMFADevices":                 serveIAM((*iam.Service).ListMFADevices),
	"ListPolicies":                   serveIAM((*iam.Service).ListPolicies),
	"ListPolicyTags":                 serveIAM((*iam.Service).ListPolicyTags),
	"ListPolicyVersions":             serveIAM((*iam.Service).ListPolicyVersions),
	"ListRolePolicies":               serveIAM((*iam.Service).ListRolePolicies),
	"ListRoleTags":                   serveIAM((*iam.Service).ListRoleTags),
	"ListRoles":                      serveIAM((*iam.Service).ListRoles),
	"ListSSHPublicKeys":              serveIAM((*iam.Service).ListSSHPublicKeys),
	"ListServiceSpecificCredentials": serveIAM((*iam.Service).ListServiceSpecificCredentials),
	"ListSigningCertificates":        serveIAM((*iam.Service).ListSigningCertificates),
	"ListUserPolicies":               serveIAM((*iam.Service).ListUserPolicies),
	"ListUserTags":                   serveIAM((*iam.Service).ListUserTags),
	"ListUsers":                      serveIAM((*iam.Service).ListUsers),
	"ListVirtualMFADevices":          serveIAM((*iam.Service).ListVirtualMFADevices),
	"PutRolePermissionsBoundary":     serveIAM((*iam.Service).PutRolePermissionsBoundary),
	"PutRolePolicy":                  serveIAM((*iam.Service).PutRolePolicy),
	"PutUserPermissionsBoundary":     serveIAM((*iam.Service).PutUserPermissionsBoundary),
	"PutUserPolicy":                  serveIAM((*iam.Service).PutUserPolicy),
	"SetDefaultPolicyVersion":        serveIAM((*iam.Service).SetDefaultPolicyVersion),
	"TagPolicy":                      serveIAM((*iam.Service).TagPolicy),
	"TagRole":                        serveIAM((*iam.Service).TagRole),
	"TagUser":                        serveIAM((*iam.Service).TagUser),
	"UntagPolicy":                    serveIAM((*iam.Service).UntagPolicy),
	"UntagRole":                      serveIAM((*iam.Service).UntagRole),
	"UntagUser":                      serveIAM((*iam.Service).UntagUser),
	"UpdateAccessKey":                serveIAM((*iam.Service).UpdateAccessKey),
	"UpdateAssumeRolePolicy":         serveIAM((*iam.Service).UpdateAssumeRolePolicy),
	"UpdateRole":                     serveIAM((*iam.Service).UpdateRole),
	"UpdateRoleDescription":          serveIAM((*iam.Service).UpdateRoleDescription),
	"UpdateUser":                     serveIAM((*iam.Service).UpdateUser),
}

// servedSTS are the operations of STS.
var servedSTS = map[string]endpoint{
	"AssumeRole":        serveIAM((*iam.Service).AssumeRole),
	"GetCallerIdentity": serveIAM((*iam.Service).GetCallerIdentity),
	"GetSessionToken":   serveIAM((*iam.Service).GetSessionToken),
}

// wiper is an input or output that holds plaintext.
type wiper interface{ Wipe() }

// serve makes an endpoint of a method of KMS.
func serve[In, Out any](method func(*kms.Service, context.Context, *kms.Request, *In) (*Out, error)) endpoint {
	return newEndpoint(func(ctx context.Context, cfg *Config, x *exchange, in *In) (*Out, error) {
		return method(cfg.KMS, ctx, &x.request, in)
	})
}

// serveIAM makes an endpoint of a method of IAM or STS.
func serveIAM[In, Out any](method func(*iam.Service, context.Context, *iam.Request, *In) (*Out, error)) endpoint {
	return newEndpoint(func(ctx context.Context, cfg *Config, x *exchange, in *In) (*Out, error) {
		r := &iam.Request{ID: x.request.ID, Operation: x.request.Operation, Caller: x.request.Caller, Origin: x}
		defer func() { x.roles = r.Roles }()
		return method(cfg.IAM, ctx, r, in)
	})
}

func newEndpoint[In, Out any](run func(context.Context, *Config, *exchange, *In) (*Out, error)) endpoint {
	return endpoint{
		inputType:  reflect.TypeFor[In](),
		outputType: reflect.TypeFor[Out](),
		call: func(ctx context.Context, cfg *Config, x *exchange, d *decoder) (any, error) {
			in := new(In)
			if w, ok := any(in).(wiper); ok {
				defer w.Wipe()
			}
			if err := x.decode(d, in); err != nil {
				return nil, err
			}
			x.input = in
			if err := cfg.recordable(x.request.Operation); err != nil {
				return nil, err
			}
			out, err := run(ctx, cfg, x, in)
			if err != nil {
				return nil, err
			}
			return out, nil
		},
	}
}

// decode reads the request into dst, in the protocol in which it came.
func (x *exchange) decode(d *decoder, dst any) error {
	if x.form != nil {
		return d.decodeForm(x.form, dst)
	}
	return d.decode(x.body, dst)
}

// unsupported is the endpoint of an operation that has no method yet.
func unsupported(name string) endpoint {
	return endpoint{call: func(context.Context, *Config, *exchange, *decoder) (any, error) {
		return nil, kms.Errorf(kms.UnsupportedOperation, "The operation %s is not supported.", name)
	}}
}

// endpoints joins the operations of the model with their methods. It fails if a method's types do not hold exactly the
// members of the model.
func endpoints(m *model, methods map[string]endpoint) (map[string]endpoint, error) {
	all := make(map[string]endpoint)
	for _, name := range m.operationNames() {
		e, ok := methods[name]
		if !ok {
			all[name] = unsupported(name)
			continue
		}
		var err error
		if e.decoder, err = newDecoder(m, name, e.inputType); err != nil {
			return nil, fmt.Errorf("reading input of %s: %w", name, err)
		}
		if e.output, err = checkOutput(m, name, e.outputType); err != nil {
			return nil, fmt.Errorf("checking output of %s: %w", name, err)
		}
		all[name] = e
	}
	return all, nil
}
