package api

import (
	"context"
	"fmt"
	"reflect"

	"hsmkms/kms"
)

// endpoint is an operation as the wire sees it.
type endpoint struct {
	input, output reflect.Type
	decoder       *decoder
	// call decodes the body, runs the operation and gives its output. What held plaintext of the input is wiped.
	call func(ctx context.Context, s *kms.Service, r *kms.Request, d *decoder, body []byte) (any, error)
}

// served are the operations that have a method. The others of the model answer UnsupportedOperationException.
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

// wiper is an input or output that holds plaintext.
type wiper interface{ Wipe() }

// serve makes an endpoint of a method of the service.
func serve[In, Out any](method func(*kms.Service, context.Context, *kms.Request, *In) (*Out, error)) endpoint {
	return endpoint{
		input:  reflect.TypeFor[In](),
		output: reflect.TypeFor[Out](),
		call: func(ctx context.Context, s *kms.Service, r *kms.Request, d *decoder, body []byte) (any, error) {
			in := new(In)
			if w, ok := any(in).(wiper); ok {
				defer w.Wipe()
			}
			if err := d.decode(body, in); err != nil {
				return nil, err
			}
			out, err := method(s, ctx, r, in)
			if err != nil {
				return nil, err
			}
			return out, nil
		},
	}
}

// unsupported is the endpoint of an operation that has no method yet.
func unsupported(name string) endpoint {
	return endpoint{call: func(context.Context, *kms.Service, *kms.Request, *decoder, []byte) (any, error) {
		return nil, kms.Errorf(kms.UnsupportedOperation, "The operation %s is not supported.", name)
	}}
}

// endpoints joins the operations of the model with their methods. It fails if a method's types do not hold exactly the
// members of the model.
func endpoints(m *model) (map[string]endpoint, error) {
	all := make(map[string]endpoint)
	for _, name := range m.operationNames() {
		e, ok := served[name]
		if !ok {
			all[name] = unsupported(name)
			continue
		}
		var err error
		if e.decoder, err = newDecoder(m, name, e.input); err != nil {
			return nil, fmt.Errorf("reading input of %s: %w", name, err)
		}
		if err := checkOutput(m, name, e.output); err != nil {
			return nil, fmt.Errorf("checking output of %s: %w", name, err)
		}
		all[name] = e
	}
	return all, nil
}
