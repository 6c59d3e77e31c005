package contract

import (
	"crypto/ecdh"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// Every operation that names a key, over the wire, for keys in the states that can be reached. kms/states_test.go compares
// all states with the published table; here they are reached as clients do.

// outcome is what an operation answers for a key in a state: the type, and the text behind the key's ARN.
type outcome struct{ code, text string }

var (
	succeeds  = outcome{}
	disabled  = outcome{"DisabledException", " is disabled."}
	dying     = outcome{"KMSInvalidStateException", " is pending deletion."}
	notDying  = outcome{"KMSInvalidStateException", " is not pending deletion."}
	importing = outcome{"KMSInvalidStateException", " is pending import."}
	generated = outcome{"UnsupportedOperationException", " origin is AWS_KMS which is not valid for this operation."}
	external  = outcome{"UnsupportedOperationException", " origin is EXTERNAL which is not valid for this operation."}
	// badToken is as far as an import comes without a token of the key.
	badToken = outcome{"InvalidImportTokenException", ""}
)

// stateRow is an operation with its outcomes, in the order of reachableStates.
type stateRow struct {
	operation string
	// body makes a request about a key, with aliases and grants of its own, a ciphertext that it made, and another key.
	body     func(t *testing.T, k *stateKey) string
	outcomes [4]outcome
}

// stateKey is a key with what a request about it may need.
type stateKey struct {
	id, other       string
	aliases         []string
	blob, otherBlob []byte
	grants          []string
}

// grant gives a grant of the key that no other request has.
func (k *stateKey) grant() string {
	grant := k.grants[0]
	k.grants = k.grants[1:]
	return grant
}

// alias gives an alias of the key that no other request has.
func (k *stateKey) alias() string {
	alias := k.aliases[0]
	k.aliases = k.aliases[1:]
	return alias
}

// reachableStates bring keys into the states.
var reachableStates = []struct {
	name string
	make func(t *testing.T, s *kmstest.Server) string
	// then is done to the key when it has made a ciphertext.
	then func(t *testing.T, s *kmstest.Server, id string)
}{
	{"Enabled", newAnyKey, func(*testing.T, *kmstest.Server, string) {}},
	{"Disabled", newAnyKey, func(t *testing.T, s *kmstest.Server, id string) { setEnabled(t, s, id, false) }},
	{"PendingDeletion", newAnyKey, func(t *testing.T, s *kmstest.Server, id string) {
		setEnabled(t, s, id, false) // which shows no more
		scheduleDeletion(t, s, id)
	}},
	{"PendingImport", newWaitingKey, func(t *testing.T, s *kmstest.Server, id string) {
		accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id))
	}},
}

func newAnyKey(t *testing.T, s *kmstest.Server) string { return s.NewKey(t) }

// newWaitingKey makes a key of imported material.
func newWaitingKey(t *testing.T, s *kmstest.Server) string {
	t.Helper()
	id := s.NewExternalKey(t)
	in := s.ImportSet(t, id, "RSAES_OAEP_SHA_1", "RSA_2048").Input(t, []byte("32 bytes of imported key material"[:32]))
	_, err := s.Client().ImportKeyMaterial(t.Context(), in)
	require.NoError(t, err)
	return id
}

// onKey makes a request about the key with further members.
func onKey(pairs ...any) func(*testing.T, *stateKey) string {
	return func(t *testing.T, k *stateKey) string { return object(t, append([]any{"KeyId", k.id}, pairs...)...) }
}

// The outcomes that several operations have.
var (
	always      = [4]outcome{}
	unlessDying = [4]outcome{2: dying}
	usable      = [4]outcome{succeeds, disabled, dying, importing}
	toggling    = [4]outcome{succeeds, succeeds, dying, importing}
	autoRotates = [4]outcome{succeeds, disabled, dying, external}
	imports     = [4]outcome{generated, generated, generated, succeeds}
)

var stateRows = []stateRow{
	{"CancelKeyDeletion", onKey(), [4]outcome{notDying, notDying, succeeds, notDying}},
	{"CreateAlias", func(t *testing.T, k *stateKey) string {
		return object(t, "AliasName", freeAlias(), "TargetKeyId", k.id)
	}, unlessDying},
	{"CreateGrant", onKey("GranteePrincipal", kmstest.IAMARN("root"), "Operations", []string{"DescribeKey"}), usable},
	{"Decrypt", func(t *testing.T, k *stateKey) string { return object(t, "CiphertextBlob", k.blob) }, usable},
	{"Decrypt", func(t *testing.T, k *stateKey) string { return object(t, "CiphertextBlob", k.blob, "KeyId", k.alias()) }, usable},
	{"DeleteAlias", func(t *testing.T, k *stateKey) string { return object(t, "AliasName", k.alias()) }, always},
	{"DeleteImportedKeyMaterial", onKey(), imports},
	{"DescribeKey", onKey(), always},
	{"DisableKey", onKey(), toggling},
	{"DisableKeyRotation", onKey(), autoRotates},
	{"EnableKey", onKey(), toggling},
	{"EnableKeyRotation", onKey(), autoRotates},
	{"Encrypt", onKey("Plaintext", []byte("x")), usable},
	{"GenerateDataKey", onKey("KeySpec", "AES_256"), usable},
	{"GenerateDataKeyPair", onKey("KeyPairSpec", "ECC_NIST_P256"), usable},
	{"GenerateDataKeyPairWithoutPlaintext", onKey("KeyPairSpec", "ECC_NIST_P256"), usable},
	{"GenerateDataKeyWithoutPlaintext", onKey("KeySpec", "AES_256"), usable},
	{"GetKeyLastUsage", onKey(), always},
	{"GetKeyPolicy", onKey(), always},
	{"GetKeyRotationStatus", onKey(), [4]outcome{3: external}},
	{"GetParametersForImport", onKey("WrappingAlgorithm", "RSAES_OAEP_SHA_1", "WrappingKeySpec", "RSA_2048"), imports},
	{"ImportKeyMaterial", onKey("ImportToken", []byte("token"), "EncryptedKeyMaterial", []byte("material"),
		"ExpirationModel", "KEY_MATERIAL_DOES_NOT_EXPIRE"), [4]outcome{generated, generated, generated, badToken}},
	{"ListAliases", onKey(), always},
	{"ListGrants", onKey(), always},
	{"ListKeyPolicies", onKey(), always},
	{"ListKeyRotations", onKey(), always},
	{"ListResourceTags", onKey(), always},
	{"PutKeyPolicy", onKey("Policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"kms:*","Resource":"*"}]}`), always},
	{"ReEncrypt", func(t *testing.T, k *stateKey) string {
		return object(t, "CiphertextBlob", k.blob, "DestinationKeyId", k.other)
	}, usable},
	{"ReEncrypt", func(t *testing.T, k *stateKey) string {
		return object(t, "CiphertextBlob", k.otherBlob, "DestinationKeyId", k.id)
	}, usable},
	{"RetireGrant", func(t *testing.T, k *stateKey) string { return object(t, "KeyId", k.id, "GrantId", k.grant()) }, always},
	{"RevokeGrant", func(t *testing.T, k *stateKey) string { return object(t, "KeyId", k.id, "GrantId", k.grant()) }, always},
	{"RotateKeyOnDemand", onKey(), usable},
	{"ScheduleKeyDeletion", onKey(), unlessDying},
	{"TagResource", onKey("Tags", []members{{"TagKey": "a", "TagValue": "b"}}), unlessDying},
	{"UntagResource", onKey("TagKeys", []string{"a"}), unlessDying},
	{"UpdateAlias", func(t *testing.T, k *stateKey) string { return object(t, "AliasName", k.alias(), "TargetKeyId", k.id) }, unlessDying},
	{"UpdateAlias", func(t *testing.T, k *stateKey) string {
		return object(t, "AliasName", k.alias(), "TargetKeyId", k.other)
	}, always},
	{"UpdateKeyDescription", onKey("Description", "new"), unlessDying},
}

// TestKeyStates sends each request about a key in each state. A key serves until a request has changed its state.
func TestKeyStates(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		other := s.NewKey(t)
		otherBlob := s.Encrypt(t, other, []byte("x"), nil)
		for column, state := range reachableStates {
			var k *stateKey
			for _, row := range stateRows {
				if k == nil || describe(t, s, k.id)["KeyState"] != state.name {
					k = &stateKey{id: state.make(t, s), other: other, otherBlob: otherBlob}
					k.blob = s.Encrypt(t, k.id, []byte("x"), nil)
					for range 4 { // each for one request
						k.aliases = append(k.aliases, newAlias(t, s, k.id))
						k.grants = append(k.grants, accept(t, s, "CreateGrant",
							object(t, "KeyId", k.id, "GranteePrincipal", kmstest.IAMARN("root"), "Operations", []string{"DescribeKey"}))["GrantId"].(string))
					}
					state.then(t, s, k.id)
					require.Equal(t, state.name, describe(t, s, k.id)["KeyState"])
				}
				row.outcomes[column].require(t, s.Post(t, row.operation, row.body(t, k)), k.id, row.operation+" "+state.name)
			}
		}
	})
}

func (o outcome) require(t *testing.T, answer kmstest.Answer, id, what string) {
	t.Helper()
	switch o {
	case succeeds:
		require.Equal(t, http.StatusOK, answer.Status, "%s: %s", what, answer.Body)
	case badToken:
		require.Equal(t, o.code, answer.JSON(t)["__type"], "%s: %s", what, answer.Body)
	default:
		require.Equal(t, members{"__type": o.code, "message": kmstest.KeyARN(id) + o.text}, answer.JSON(t), what)
	}
}

// TestKeyStatesAreWhole guards against an operation that is served and not in the rows.
func TestKeyStatesAreWhole(t *testing.T) {
	for operation := range model(t).Operations {
		keyless := slices.Contains([]string{"CreateKey", "GenerateRandom", "ListKeys", "ListRetirableGrants"}, operation)
		inRows := slices.ContainsFunc(stateRows, func(r stateRow) bool { return r.operation == operation }) ||
			slices.ContainsFunc(otherKeys, func(q otherKey) bool { return q.operation == operation })
		require.Equal(t, isTested(t, operation) && !keyless, inRows, strings.ToLower(operation))
	}
}

// otherKey is an operation with a key that is not symmetric.
type otherKey struct {
	operation, spec, usage string
	body                   members
}

var otherKeys = []otherKey{
	{"DeriveSharedSecret", "ECC_NIST_P256", "KEY_AGREEMENT", members{"KeyAgreementAlgorithm": "ECDH"}},
	{"Encrypt", "RSA_2048", "ENCRYPT_DECRYPT", members{"Plaintext": []byte("x"), "EncryptionAlgorithm": "RSAES_OAEP_SHA_1"}},
	{"GenerateMac", "HMAC_256", "GENERATE_VERIFY_MAC", members{"Message": []byte("x"), "MacAlgorithm": "HMAC_SHA_256"}},
	{"GetPublicKey", "ECC_NIST_P384", "SIGN_VERIFY", members{}},
	{"Sign", "ECC_NIST_P256", "SIGN_VERIFY", members{"Message": []byte("x"), "SigningAlgorithm": "ECDSA_SHA_256"}},
	{"Verify", "ECC_NIST_P256", "SIGN_VERIFY", members{"Message": []byte("x"), "SigningAlgorithm": "ECDSA_SHA_256", "Signature": []byte("x")}},
	{"VerifyMac", "HMAC_256", "GENERATE_VERIFY_MAC", members{"Message": []byte("x"), "MacAlgorithm": "HMAC_SHA_256", "Mac": []byte("x")}},
}

// TestKeyStatesOfOtherKeys uses keys that are not symmetric in each state. Those to which material was never imported are
// PendingImport.
func TestKeyStatesOfOtherKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		_, peer := newPeer(t, ecdh.P256())
		for _, q := range otherKeys {
			id := newKeyOf(t, s, q.spec, q.usage)
			send := func(id string) kmstest.Answer {
				body := maps.Clone(q.body)
				body["KeyId"] = id
				if q.operation == "DeriveSharedSecret" {
					body["PublicKey"] = peer
				}
				return s.Post(t, q.operation, object(t, pairs(body)...))
			}
			require.NotContains(t, send(id).Body, id+" is ", q.operation) // Enabled
			setEnabled(t, s, id, false)
			disabled.require(t, send(id), id, q.operation)
			scheduleDeletion(t, s, id)
			dying.require(t, send(id), id, q.operation)
			id = createKey(t, s, object(t, "KeySpec", q.spec, "KeyUsage", q.usage, "Origin", "EXTERNAL"))["KeyId"].(string)
			importing.require(t, send(id), id, q.operation)
		}
	})
}
