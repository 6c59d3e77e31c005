package api

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/kms"
)

// sensitiveBlobs gives the paths of the members of a shape, at any depth, that the model calls sensitive blobs.
func sensitiveBlobs(t *testing.T, m *model, r reference) [][]string {
	t.Helper()
	s, err := m.shapeNamed(r)
	require.NoError(t, err)
	var paths [][]string
	for _, name := range s.memberOrder() {
		member, err := m.shapeNamed(s.Members[name])
		require.NoError(t, err)
		// A public key is none of a plaintext's secrets; the model has one shape for both.
		if member.Type == "blob" && member.Sensitive && name != "PublicKey" {
			paths = append(paths, []string{name})
		}
		for _, path := range sensitiveBlobs(t, m, s.Members[name]) {
			paths = append(paths, append([]string{name}, path...))
		}
	}
	return paths
}

// requireWipes fills the blobs of a structure and has them wiped.
func requireWipes(t *testing.T, structure reflect.Type, paths [][]string) {
	t.Helper()
	v := reflect.New(structure)
	w, ok := v.Interface().(wiper)
	require.True(t, ok, "%s holds plaintext and has no Wipe", structure)
	require.NotPanics(t, w.Wipe, "nothing to wipe")
	var secrets [][]byte
	for _, path := range paths {
		require.Len(t, path, 1, "%s: plaintext in a structure within", structure)
		secret := bytes.Repeat([]byte{0xAA}, 32)
		v.Elem().FieldByName(path[0]).SetBytes(secret)
		secrets = append(secrets, secret)
	}
	w.Wipe()
	for i, secret := range secrets {
		require.Equal(t, make([]byte, 32), secret, "%s.%s is not wiped", structure, paths[i])
	}
}

// TestPlaintextIsWiped holds the inputs and outputs of the operations to the model: what it calls sensitive is wiped.
func TestPlaintextIsWiped(t *testing.T) {
	m, err := parseModel(kmsModel)
	require.NoError(t, err)
	var wiped []string
	for name, e := range served {
		for _, side := range []struct {
			shape     reference
			structure reflect.Type
		}{{m.Operations[name].Input, e.inputType}, {m.Operations[name].Output, e.outputType}} {
			if paths := sensitiveBlobs(t, m, side.shape); len(paths) > 0 {
				requireWipes(t, side.structure, paths)
				wiped = append(wiped, side.structure.Name())
			}
		}
	}
	for _, name := range []string{
		"EncryptInput", "DecryptOutput", "GenerateDataKeyOutput", "GenerateRandomOutput", "SignInput", "VerifyInput", "GenerateMacInput",
		"VerifyMacInput", "DeriveSharedSecretOutput", "GenerateDataKeyPairOutput",
	} {
		require.True(t, slices.Contains(wiped, name), "the model is read wrongly: %s", name)
	}
}

// TestServeWipesInput calls a method that keeps the plaintext it was given: it is wiped when the call is over, however it
// ends.
func TestServeWipesInput(t *testing.T) {
	m, err := parseModel(kmsModel)
	require.NoError(t, err)
	d, err := newDecoder(m, "Encrypt", reflect.TypeFor[kms.EncryptInput]())
	require.NoError(t, err)
	for name, end := range map[string]func() (*kms.EncryptOutput, error){
		"an answer": func() (*kms.EncryptOutput, error) { return &kms.EncryptOutput{}, nil },
		"an error":  func() (*kms.EncryptOutput, error) { return nil, errors.New("failed") },
		"a panic":   func() (*kms.EncryptOutput, error) { panic("failed") },
	} {
		t.Run(name, func(t *testing.T) {
			var kept []byte
			e := serve(func(_ *kms.Service, _ context.Context, _ *kms.Request, in *kms.EncryptInput) (*kms.EncryptOutput, error) {
				require.Equal(t, "hello", string(in.Plaintext))
				kept = in.Plaintext
				return end()
			})
			func() {
				defer func() { _ = recover() }()
				_, _ = e.call(t.Context(), &Config{}, &exchange{body: []byte(`{"KeyId":"k","Plaintext":"aGVsbG8="}`)}, d)
			}()
			require.Equal(t, make([]byte, 5), kept)
		})
	}
}

// TestEncodeWipesOutput encodes plaintext, which is wiped then, and makes no body of an empty output.
func TestEncodeWipesOutput(t *testing.T) {
	out := &kms.DecryptOutput{Plaintext: []byte("hello"), KeyId: "<&>"}
	var body bytes.Buffer
	require.NoError(t, encode(&body, out))
	require.JSONEq(t, `{"KeyId":"<&>","Plaintext":"aGVsbG8="}`, body.String())
	require.Contains(t, body.String(), "<&>", "no HTML here")
	require.Equal(t, make([]byte, 5), out.Plaintext)
	body.Reset()
	require.NoError(t, encode(&body, &kms.Empty{}))
	require.Empty(t, body.Bytes())
}

// TestBuffersAreWiped gives back a buffer that held a body: the memory that the pool keeps is zero.
func TestBuffersAreWiped(t *testing.T) {
	b := getBuffer()
	b.WriteString("the plaintext of a request")
	memory := b.Bytes()
	_ = b.Next(4) // what was read is part of it
	putBuffer(b)
	require.Equal(t, make([]byte, len(memory)), memory)
}

// TestEveryOperationHasAnEndpoint holds the table of operations to the model: what has no method says so by name.
func TestEveryOperationHasAnEndpoint(t *testing.T) {
	m, err := parseModel(kmsModel)
	require.NoError(t, err)
	all, err := endpoints(m, served)
	require.NoError(t, err)
	require.Len(t, all, len(m.Operations))
	for name := range served {
		require.Contains(t, m.Operations, name)
	}
	for name, e := range all {
		if _, ok := served[name]; ok {
			require.NotNil(t, e.decoder, name)
			continue
		}
		out, err := e.call(t.Context(), nil, nil, nil)
		require.Nil(t, out)
		var shown *kms.Error
		require.ErrorAs(t, err, &shown)
		require.Equal(t, kms.UnsupportedOperation, shown.Type)
		require.Equal(t, "The operation "+name+" is not supported.", shown.Message)
	}
}
