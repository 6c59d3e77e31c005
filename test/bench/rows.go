package main

import (
	"context"
	"crypto/rand"
	"fmt"
)

// row is a line of the table: an operation with keys of some sort.
type row struct {
	name, operation string
	// keys are the CreateKey requests of the keys that it uses.
	keys []map[string]any
	// body makes a request with the keys' ids and a plaintext of its own. call makes another request first.
	body func(keys []string, plaintext []byte, call func(operation string, in map[string]any) (map[string]any, error)) (map[string]any, error)
}

var (
	symmetric         = map[string]any{}
	rsaDecrypts       = keyOf("RSA_2048", "ENCRYPT_DECRYPT")
	encryptionContext = map[string]string{"purpose": "bench", "tenant": "blue"}
)

// oaep is the algorithm that SoftHSM does on the token.
const oaep = "RSAES_OAEP_SHA_1"

func keyOf(spec, usage string) map[string]any {
	return map[string]any{"KeySpec": spec, "KeyUsage": usage}
}

// rows are the lines of the table.
var rows = []row{
	{name: "Encrypt", operation: "Encrypt", keys: []map[string]any{symmetric}, body: encryptBody},
	{name: "Decrypt", operation: "Decrypt", keys: []map[string]any{symmetric}, body: ciphertextBody(map[string]any{"EncryptionContext": encryptionContext})},
	{name: "ReEncrypt", operation: "ReEncrypt", keys: []map[string]any{symmetric, symmetric},
		body: ciphertextBody(map[string]any{"SourceEncryptionContext": encryptionContext, "DestinationEncryptionContext": encryptionContext})},
	{name: "GenerateDataKey", operation: "GenerateDataKey", keys: []map[string]any{symmetric}, body: fixedBody(map[string]any{"KeySpec": "AES_256", "EncryptionContext": encryptionContext})},
	signs("Sign RSA_2048 PSS", "RSA_2048", "RSASSA_PSS_SHA_256"),
	signs("Sign P-256", "ECC_NIST_P256", "ECDSA_SHA_256"),
	signs("Sign Ed25519", "ECC_NIST_EDWARDS25519", "ED25519_SHA_512"),
	{name: "GenerateMac", operation: "GenerateMac", keys: []map[string]any{keyOf("HMAC_256", "GENERATE_VERIFY_MAC")}, body: messageBody(map[string]any{"MacAlgorithm": "HMAC_SHA_256"})},
	{name: "Decrypt RSA", operation: "Decrypt", keys: []map[string]any{rsaDecrypts}, body: ciphertextBody(map[string]any{"EncryptionAlgorithm": oaep})},
	{name: "ReEncrypt RSA>AES", operation: "ReEncrypt", keys: []map[string]any{rsaDecrypts, symmetric},
		body: ciphertextBody(map[string]any{"SourceEncryptionAlgorithm": oaep, "DestinationEncryptionContext": encryptionContext})},
	{name: "ReEncrypt AES>RSA", operation: "ReEncrypt", keys: []map[string]any{symmetric, rsaDecrypts},
		body: ciphertextBody(map[string]any{"SourceEncryptionContext": encryptionContext, "DestinationEncryptionAlgorithm": oaep})},
}

type caller = func(operation string, in map[string]any) (map[string]any, error)

// with adds members to a copy of a request.
func with(in map[string]any, members ...any) map[string]any {
	out := map[string]any{}
	for name, value := range in {
		out[name] = value
	}
	for i := 0; i < len(members); i += 2 {
		out[members[i].(string)] = members[i+1]
	}
	return out
}

func fixedBody(in map[string]any) func([]string, []byte, caller) (map[string]any, error) {
	return func(keys []string, _ []byte, _ caller) (map[string]any, error) {
		return with(in, "KeyId", keys[0]), nil
	}
}

func messageBody(in map[string]any) func([]string, []byte, caller) (map[string]any, error) {
	return func(keys []string, plaintext []byte, _ caller) (map[string]any, error) {
		return with(in, "KeyId", keys[0], "Message", plaintext), nil
	}
}

func signs(name, spec, algorithm string) row {
	return row{name: name, operation: "Sign", keys: []map[string]any{keyOf(spec, "SIGN_VERIFY")}, body: messageBody(map[string]any{"SigningAlgorithm": algorithm})}
}

func encryptBody(keys []string, plaintext []byte, _ caller) (map[string]any, error) {
	return map[string]any{"KeyId": keys[0], "Plaintext": plaintext, "EncryptionContext": encryptionContext}, nil
}

// ciphertextBody makes a request for a ciphertext under the first key; a second key is the destination.
func ciphertextBody(in map[string]any) func([]string, []byte, caller) (map[string]any, error) {
	return func(keys []string, plaintext []byte, call caller) (map[string]any, error) {
		encrypt := map[string]any{"KeyId": keys[0], "Plaintext": plaintext}
		for _, name := range []string{"EncryptionAlgorithm", "SourceEncryptionAlgorithm"} {
			if algorithm, ok := in[name]; ok {
				encrypt["EncryptionAlgorithm"] = algorithm
			}
		}
		if encrypt["EncryptionAlgorithm"] == nil {
			encrypt["EncryptionContext"] = encryptionContext
		}
		out, err := call("Encrypt", encrypt)
		if err != nil {
			return nil, err
		}
		body := with(in, "CiphertextBlob", out["CiphertextBlob"])
		source := "KeyId"
		if len(keys) > 1 {
			source, body["DestinationKeyId"] = "SourceKeyId", keys[1]
		}
		if encrypt["EncryptionAlgorithm"] != nil { // such a ciphertext does not tell its key
			body[source] = keys[0]
		}
		return body, nil
	}
}

// bodies makes n requests' bodies of a row, each with a plaintext of its own.
func (t *target) bodies(ctx context.Context, r row, n, payload int) ([][]byte, error) {
	var keys []string
	for _, request := range r.keys {
		out, err := t.call(ctx, "CreateKey", request)
		if err != nil {
			return nil, fmt.Errorf("CreateKey: %w", err)
		}
		keys = append(keys, out["KeyMetadata"].(map[string]any)["KeyId"].(string))
	}
	call := func(operation string, in map[string]any) (map[string]any, error) { return t.call(ctx, operation, in) }
	var all [][]byte
	for range n {
		plaintext := make([]byte, payload)
		_, _ = rand.Read(plaintext) // never fails
		body, err := r.body(keys, plaintext, call)
		if err != nil {
			return nil, err
		}
		all = append(all, mustJSON(body))
	}
	return all, nil
}
