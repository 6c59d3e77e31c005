package api

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/kms"
)

// The inputs of some operations, as a domain would declare them.
type (
	algorithm string

	encryptInput struct {
		KeyId               string            `json:",omitzero"`
		Plaintext           []byte            `json:",omitzero"`
		EncryptionContext   map[string]string `json:",omitzero"`
		GrantTokens         []string          `json:",omitzero"`
		EncryptionAlgorithm algorithm         `json:",omitzero"`
		DryRun              bool              `json:",omitzero"`
	}

	reEncryptInput struct {
		CiphertextBlob                 []byte            `json:",omitzero"`
		SourceEncryptionContext        map[string]string `json:",omitzero"`
		SourceKeyId                    string            `json:",omitzero"`
		DestinationKeyId               string            `json:",omitzero"`
		DestinationEncryptionContext   map[string]string `json:",omitzero"`
		SourceEncryptionAlgorithm      algorithm         `json:",omitzero"`
		DestinationEncryptionAlgorithm algorithm         `json:",omitzero"`
		GrantTokens                    []string          `json:",omitzero"`
		DryRun                         *bool             `json:",omitzero"`
		DryRunModifiers                []algorithm       `json:",omitzero"`
	}

	tag struct {
		TagKey   string
		TagValue string
	}

	createKeyInput struct {
		Policy                         string  `json:",omitzero"`
		Description                    *string `json:",omitzero"`
		KeyUsage                       string  `json:",omitzero"`
		CustomerMasterKeySpec          string  `json:",omitzero"`
		KeySpec                        string  `json:",omitzero"`
		Origin                         string  `json:",omitzero"`
		CustomKeyStoreId               string  `json:",omitzero"`
		BypassPolicyLockoutSafetyCheck bool    `json:",omitzero"`
		Tags                           []tag   `json:",omitzero"`
		MultiRegion                    *bool   `json:",omitzero"`
		XksKeyId                       string  `json:",omitzero"`
	}

	listKeysInput struct {
		Limit  *int32 `json:",omitzero"`
		Marker string `json:",omitzero"`
	}

	recipient struct {
		KeyEncryptionAlgorithm string `json:",omitzero"`
		AttestationDocument    []byte `json:",omitzero"`
	}

	generateRandomInput struct {
		NumberOfBytes    int64      `json:",omitzero"`
		CustomKeyStoreId string     `json:",omitzero"`
		Recipient        *recipient `json:",omitzero"`
	}

	importKeyMaterialInput struct {
		KeyId                  string         `json:",omitzero"`
		ImportToken            []byte         `json:",omitzero"`
		EncryptedKeyMaterial   []byte         `json:",omitzero"`
		ValidTo                *kms.Timestamp `json:",omitzero"`
		ExpirationModel        string         `json:",omitzero"`
		ImportType             string         `json:",omitzero"`
		KeyMaterialDescription string         `json:",omitzero"`
		KeyMaterialId          string         `json:",omitzero"`
	}

	grantConstraints struct {
		EncryptionContextSubset map[string]string `json:",omitzero"`
		EncryptionContextEquals map[string]string `json:",omitzero"`
	}

	createGrantInput struct {
		KeyId             string            `json:",omitzero"`
		GranteePrincipal  string            `json:",omitzero"`
		RetiringPrincipal string            `json:",omitzero"`
		Operations        []string          `json:",omitzero"`
		Constraints       *grantConstraints `json:",omitzero"`
		GrantTokens       []string          `json:",omitzero"`
		Name              string            `json:",omitzero"`
		DryRun            bool              `json:",omitzero"`
	}
)

// inputs are the operations that the tests decode.
var inputs = map[string]reflect.Type{
	"Encrypt":           reflect.TypeFor[encryptInput](),
	"ReEncrypt":         reflect.TypeFor[reEncryptInput](),
	"CreateKey":         reflect.TypeFor[createKeyInput](),
	"ListKeys":          reflect.TypeFor[listKeysInput](),
	"GenerateRandom":    reflect.TypeFor[generateRandomInput](),
	"ImportKeyMaterial": reflect.TypeFor[importKeyMaterialInput](),
	"CreateGrant":       reflect.TypeFor[createGrantInput](),
	"UntagResource":     reflect.TypeFor[kms.UntagResourceInput](),
}

// decoderFor gives the decoder for one of inputs.
func decoderFor(t testing.TB, operation string) *decoder {
	d, err := newDecoder(published(t), operation, inputs[operation])
	require.NoError(t, err)
	return d
}

// goType makes a Go type from a shape of the model.
func goType(m *model, r reference) reflect.Type {
	s, _ := m.shapeNamed(r)
	switch s.Type {
	case "string":
		return reflect.TypeFor[string]()
	case "integer":
		return reflect.TypeFor[*int32]()
	case "boolean":
		return reflect.TypeFor[*bool]()
	case "timestamp":
		return reflect.TypeFor[*kms.Timestamp]()
	case "blob":
		return reflect.TypeFor[[]byte]()
	case "map":
		return reflect.TypeFor[map[string]string]()
	case "list":
		return reflect.SliceOf(goType(m, *s.Member))
	}
	var fields []reflect.StructField
	for _, name := range s.memberOrder() {
		fields = append(fields, reflect.StructField{Name: name, Type: goType(m, s.Members[name])})
	}
	return reflect.StructOf(fields)
}

// TestWholeModel compiles every operation of the model: no shape and no constraint is beyond the decoder.
func TestWholeModel(t *testing.T) {
	m := published(t)
	for _, name := range m.operationNames() {
		_, err := newDecoder(m, name, goType(m, m.Operations[name].Input))
		require.NoError(t, err)
		_, err = checkOutput(m, name, goType(m, m.Operations[name].Output))
		require.NoError(t, err)
	}
}

func TestNewDecoderAccepts(t *testing.T) {
	for operation := range inputs {
		decoderFor(t, operation)
	}
	_, err := newDecoder(published(t), "ListKeys", reflect.TypeFor[struct {
		Limit  int32
		Marker *algorithm
		hidden func()
	}]())
	require.NoError(t, err)
}

func TestNewDecoderRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		operation string
		input     any
		text      string
	}{
		"an unknown operation": {"ListLocks", struct{}{}, `the model has no operation "ListLocks"`},
		"a missing member":     {"ListKeys", struct{ Marker string }{}, "lacks the field Limit"},
		"a surplus field": {"ListKeys", struct {
			Marker, Extra string
			Limit         int32
		}{}, "has the field Extra, which is no member"},
		"another spelling":    {"CancelKeyDeletion", struct{ KeyID string }{}, "has the field KeyID, which is no member"},
		"an unexported field": {"CancelKeyDeletion", struct{ keyId string }{}, "lacks the field KeyId"},
		"an embedded struct":  {"CancelKeyDeletion", struct{ Base }{}, "has the field Base, which is no member"},
		"an embedded member":  {"CancelKeyDeletion", struct{ KeyId }{}, "has the field KeyId, which is no member"},
		"another JSON name": {"CancelKeyDeletion", struct {
			KeyId string `json:"keyId"`
		}{}, `gives it the name "keyId"`},
		"no JSON name": {"CancelKeyDeletion", struct {
			KeyId string `json:"-"`
		}{}, `gives it the name "-"`},
		"bytes for a string":     {"CancelKeyDeletion", struct{ KeyId []byte }{}, "[]uint8 cannot hold the string KeyIdType"},
		"a pointer to a pointer": {"CancelKeyDeletion", struct{ KeyId **string }{}, "*string cannot hold the string KeyIdType"},
		"no struct":              {"CancelKeyDeletion", "", "string cannot hold the structure CancelKeyDeletionRequest"},
		"a string for a number":  {"ListKeys", struct{ Limit, Marker string }{}, "string cannot hold the integer LimitType"},
		"a number too small": {"ListKeys", struct {
			Limit  int16
			Marker string
		}{}, "int16 cannot hold the integer LimitType"},
		"strings for structures": {"TagResource", struct {
			KeyId string
			Tags  []string
		}{}, "elements: string cannot hold the structure Tag"},
		"a pointer to a list": {"UntagResource", struct {
			KeyId   string
			TagKeys *[]string
		}{}, "*[]string cannot hold the list TagKeyList"},
		"numbers for strings": {"UntagResource", struct {
			KeyId   string
			TagKeys []int32
		}{}, "elements: int32 cannot hold the string TagKeyType"},
		"a nested missing member": {"TagResource", struct {
			KeyId string
			Tags  []struct{ TagKey string }
		}{}, "member Tags: elements: struct { TagKey string } lacks the field TagValue"},
		"a string for a boolean": {"RevokeGrant", struct{ KeyId, GrantId, DryRun string }{}, "string cannot hold the boolean NullableBooleanType"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newDecoder(published(t), test.operation, reflect.TypeOf(test.input))
			require.ErrorContains(t, err, test.text)
		})
	}
}

// Base and KeyId are embedded by the structs that newDecoder must refuse.
type (
	Base  struct{ KeyId string }
	KeyId string
)

// TestRefusesModel holds the decoder against models that it could not obey in full.
func TestRefusesModel(t *testing.T) {
	for name, test := range map[string]struct {
		member string
		input  any
		text   string
	}{
		"an unknown type":          {`{"type": "double"}`, struct{ M float64 }{}, `values of type "double" cannot be read`},
		"a missing shape":          {`{"type": "list", "member": {"shape": "None"}}`, struct{ M []string }{}, `the model has no shape "None"`},
		"a list of blobs":          {`{"type": "list", "member": {"shape": "Blob"}}`, struct{ M [][]byte }{}, "a list of blob cannot be read"},
		"bounded map keys":         {`{"type": "map", "key": {"shape": "Short"}, "value": {"shape": "Text"}}`, struct{ M map[string]string }{}, "constraints on Short in a map"},
		"bounded map values":       {`{"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Short"}}`, struct{ M map[string]string }{}, "constraints on Short in a map"},
		"map values of blobs":      {`{"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Blob"}}`, struct{ M map[string]string }{}, "string cannot hold the blob Blob"},
		"a bounded map":            {`{"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Text"}, "max": 1}`, struct{ M map[string]string }{}, "constraints on the map M"},
		"a bounded timestamp":      {`{"type": "timestamp", "min": 1}`, struct{ M kms.Timestamp }{}, "constraints on the timestamp M"},
		"a pattern for an integer": {`{"type": "integer", "pattern": "1"}`, struct{ M int32 }{}, "constraints on the integer M"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newDecoder(modelWith(t, test.member), "Op", reflect.TypeOf(test.input))
			require.ErrorContains(t, err, test.text)
		})
	}
}

// modelWith gives a model with one operation, Op, whose input has one member M of the given shape.
func modelWith(t *testing.T, shape string) *model {
	m, err := parseModel(`{
		"operations": {"Op": {"name": "Op", "input": {"shape": "In"}}},
		"shapes": {
			"In": {"type": "structure", "members": {"M": {"shape": "M"}}},
			"M": ` + shape + `,
			"Text": {"type": "string"}, "Short": {"type": "string", "max": 1}, "Blob": {"type": "blob"},
			"Box": {"type": "structure", "members": {"Data": {"shape": "Blob"}, "N": {"shape": "Number"}}},
			"Number": {"type": "integer"}
		}
	}`)
	require.NoError(t, err)
	return m
}

func TestRefusesBigStructures(t *testing.T) {
	m, err := parseModel(kmsModel)
	require.NoError(t, err)
	m.Operations["Big"] = operation{Input: reference{Shape: "KeyMetadata"}}
	_, err = newDecoder(m, "Big", goType(m, reference{Shape: "KeyMetadata"}))
	require.ErrorContains(t, err, "the input of Big has a structure of 26 members, at most 16 can be read")
}

func TestCheckOutput(t *testing.T) {
	m := published(t)
	check := func(operation string, output reflect.Type) error {
		_, err := checkOutput(m, operation, output)
		return err
	}
	require.NoError(t, check("CreateAlias", reflect.TypeFor[struct{}]()))
	require.NoError(t, check("GetKeyLastUsage", goType(m, reference{Shape: "GetKeyLastUsageResponse"})))
	type output struct {
		CiphertextBlob      []byte    `json:",omitempty"`
		KeyId               string    `json:"KeyId"`
		EncryptionAlgorithm algorithm `json:"EncryptionAlgorithm,omitempty"`
	}
	require.NoError(t, check("Encrypt", reflect.TypeFor[output]()))
	require.NoError(t, check("Encrypt", reflect.TypeFor[*output]()))

	require.ErrorContains(t, check("CreateAlias", reflect.TypeFor[output]()), "no member in the model")
	require.ErrorContains(t, check("Encrypt", reflect.TypeFor[struct{}]()), "lacks the field")
	require.ErrorContains(t, check("NoSuch", reflect.TypeFor[struct{}]()), "no operation")
	require.ErrorContains(t, check("Encrypt", reflect.TypeFor[struct {
		CiphertextBlob      []byte
		EncryptionAlgorithm string
		KeyId               string `json:"Id"`
	}]()), `gives it the name "Id"`)
}
